"""Documents as ids → the files of a token store: which are held out, shards, the manifest."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from bothways.data.store import Shard, ShardWriter, id_dtype, read_chunks, store_fingerprint
from bothways.errors import UserError
from bothways.files import refuse_foreign_files, sync, sync_tree, user_errors, write_json
from bothways.text.corpus_report import CorpusReport
from bothways.text.tokenizer import VOCABULARY_FILES, Tokenizer

SHARD_TOKENS = 1 << 24  # of both splits: files of 32 MB with ids of 16 bits
STORE_FILES = ("manifest.json", "progress.json", "tokenizer", "*.arrow")  # what `--overwrite` removes
FIRST_HELD_OUT = 9  # the tenth document: corpora of fewer than ten train on all they have


class NoTextError(UserError):
    """There is not a word in the sources."""


def is_held_out(number: int, share: Fraction) -> bool:
    """Whether a document, counted from 0, is held out: of those from the tenth on their share, the tenth first."""
    later = number - FIRST_HELD_OUT
    return later >= 0 and ceil((later + 1) * share) > ceil(later * share)


def stored_documents(results: Sequence[Path]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The documents of some parts, in order, as `ShardWriter.add` takes them: ids `[T]`, lengths of sentences `[S]`."""
    for path in results:
        for chunk in read_chunks(path):
            lengths = np.diff(chunk.sentence_offsets)
            for first, end in itertools.pairwise(chunk.document_offsets):
                yield chunk.tokens[chunk.sentence_offsets[first] : chunk.sentence_offsets[end]], lengths[first:end]


@contextlib.contextmanager
def new_store(out: Path, folder: Path) -> Iterator[Path]:
    """A directory in `folder` to write a store into, which becomes `out` when the block ends well.

    Where `out` is there already, what it has of a store is replaced, and the manifest comes last. Raises UserError
    where its vocabulary's folder holds something else.
    """
    refuse_foreign_files(out / "tokenizer", VOCABULARY_FILES)
    directory = folder / f".store.{secrets.token_hex(4)}.partial"
    with user_errors(out):
        try:
            directory.mkdir()
            yield directory
            sync_tree(directory)
            if not out.exists():
                out.parent.mkdir(parents=True, exist_ok=True)
                directory.rename(out)
            else:
                # Within `out`, where nobody removes it: who joins the same parts at this time may remove `folder`.
                directory = directory.rename(out / directory.name)
                _replace_files(directory, out)
            sync(out.parent)
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _replace_files(directory: Path, out: Path) -> None:
    for name in ("manifest.json", "progress.json"):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / "tokenizer", ignore_errors=True)
    for path in out.glob("*.arrow"):
        path.unlink()
    for path in sorted(directory.iterdir(), key=lambda path: path.name == "manifest.json"):
        path.rename(out / path.name)
    sync(out)


class StoreWriter:
    """Writes both splits shard by shard into an empty directory."""

    def __init__(self, out: Path, recipe: Mapping[str, Any], tokenizer: Tokenizer) -> None:
        self.out, self.recipe, self.tokenizer = out, recipe, tokenizer
        self.splits: dict[str, list[Shard]] = {"train": [], "validation": []}
        self.documents = self.empty = self.tokens = 0
        (out / "tokenizer").mkdir()
        tokenizer.save(out / "tokenizer")
        self._open()

    def _open(self) -> None:
        number, dtype = len(self.splits["train"]), id_dtype(self.tokenizer.vocab_size)
        self._writers = {name: ShardWriter(self.out / f"{name}-{number:05d}.arrow", dtype) for name in self.splits}
        self._shard_tokens = 0

    def add(self, ids: np.ndarray, sentence_lengths: np.ndarray, split: str) -> None:
        """Write a document, or count it where it has no words."""
        self.documents += 1
        if not len(ids):
            self.empty += 1
            return
        self._writers[split].add(ids, sentence_lengths)
        self.tokens += len(ids)
        self._shard_tokens += len(ids)
        if self._shard_tokens >= SHARD_TOKENS:
            self._close_shards()
            self._open()

    def _close_shards(self) -> None:
        for name, writer in self._writers.items():
            writer.close()
            self.splits[name].append(writer.shard())

    def finish(self, report: CorpusReport, unknown: int) -> None:
        """Write the manifest, which makes the store complete. unknown: how many ids are `[UNK]`. Raises NoTextError
        where there was not a word."""
        self._close_shards()
        if not self.tokens:
            raise NoTextError(report.no_text_message([source["path"] for source in self.recipe["sources"]]))
        manifest = {
            "format": 1,
            "fingerprint": store_fingerprint(self.tokenizer.fingerprint, self.splits),
            "tokenizer": self.tokenizer.fingerprint,
            "vocab_size": self.tokenizer.vocab_size,
            "dtype": str(id_dtype(self.tokenizer.vocab_size)),
            "documents": self.documents - self.empty,
            "documents_without_words": self.empty,
            "sentences": sum(shard.sentences for shards in self.splits.values() for shard in shards),
            "tokens": self.tokens,
            "unknown_tokens": unknown,
            "corpus": report.to_dict(),
            "recipe": self.recipe,
            "splits": {name: [dataclasses.asdict(shard) for shard in shards] for name, shards in self.splits.items()},
        }
        write_json(self.out / "manifest.json", manifest)
