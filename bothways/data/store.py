"""The token store: documents × sentences × tokens in memory-mapped Arrow files, and a manifest.

A store is a directory:
    manifest.json         tokenizer fingerprint, sources with sizes and hashes, counts, what was skipped and why
    tokenizer/            the vocabulary that made it
    train-00000.arrow     one row a document: list<list<uint16|uint32>>, its sentences of ids
    validation-00000.arrow
Each record batch of a shard is a *chunk*, the unit in which the plan shuffles documents. polars, DuckDB and `datasets`
open the shards as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from bothways.data.remote_shards import RemoteShards
from bothways.errors import UserError, as_shown, command
from bothways.files import allow_open_files, hash_file, read_json, sync
from bothways.remote_files import local_folder, url_of
from bothways.text.tokenizer import Tokenizer

CHUNK_TOKENS = 1 << 16  # what an epoch puts in another order: small beside a block, large beside a document
SplitName = Literal["train", "validation"]


@dataclass(frozen=True)
class Chunk:
    """Consecutive documents.

    tokens: unsigned `[T]`. Sentence s is tokens `[sentence_offsets[s]:sentence_offsets[s+1]]`, document d is sentences
    `[document_offsets[d]:document_offsets[d+1]]`; both offsets are int64 and begin with 0.
    """

    tokens: np.ndarray
    sentence_offsets: np.ndarray
    document_offsets: np.ndarray


def join_chunks(chunks: Sequence[Chunk]) -> Chunk:
    """Chunks end to end, as one."""

    def offsets(columns: list[np.ndarray]) -> np.ndarray:
        lengths = np.concatenate([np.diff(column) for column in columns])
        return np.concatenate([[0], np.cumsum(lengths)])

    return Chunk(
        np.concatenate([chunk.tokens for chunk in chunks]),
        offsets([chunk.sentence_offsets for chunk in chunks]),
        offsets([chunk.document_offsets for chunk in chunks]),
    )


@dataclass(frozen=True)
class Shard:
    """One file of a split, as the manifest describes it. documents, sentences, tokens: how many it holds."""

    file: str
    documents: int
    sentences: int
    tokens: int
    sha256: str


def shard_schema(dtype: np.dtype) -> pa.Schema:
    """The one column of a shard. dtype: of ids."""
    return pa.schema([("sentences", pa.list_(pa.list_(pa.from_numpy_dtype(dtype))))])


class ShardWriter:
    """Writes documents into a shard, a chunk at a time; the file appears under its name when it is complete."""

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self.path, self.dtype = path, dtype
        self.partial = path.with_name(f".{path.name}.partial")
        self.schema = shard_schema(dtype)
        self.documents = self.sentences = self.tokens = 0
        self._sink = pa.OSFile(str(self.partial), "wb")
        self._writer = pa.ipc.new_file(self._sink, self.schema)
        self._ids: list[np.ndarray] = []
        self._sentence_lengths: list[np.ndarray] = []
        self._sentence_counts: list[int] = []
        self._pending = 0

    def add(self, ids: np.ndarray, sentence_lengths: np.ndarray) -> None:
        """Add a document: its ids `[T]`, sentences end to end, and the length of each sentence `[S]`."""
        self._ids.append(ids.astype(self.dtype))
        self._sentence_lengths.append(sentence_lengths)
        self._sentence_counts.append(len(sentence_lengths))
        self._pending += len(ids)
        if self._pending >= CHUNK_TOKENS:
            self._write_chunk()

    def _write_chunk(self) -> None:
        tokens = pa.array(np.concatenate(self._ids))
        sentences = pa.ListArray.from_arrays(pa.array(_offsets(np.concatenate(self._sentence_lengths))), tokens)
        documents = pa.ListArray.from_arrays(pa.array(_offsets(np.array(self._sentence_counts))), sentences)
        self._writer.write_batch(pa.record_batch([documents], schema=self.schema))
        self.documents += len(documents)
        self.sentences += len(sentences)
        self.tokens += len(tokens)
        self._ids, self._sentence_lengths, self._sentence_counts, self._pending = [], [], [], 0

    def close(self) -> Shard:
        """Finish the file and give it its name."""
        if self._ids:
            self._write_chunk()
        self._writer.close()
        self._sink.close()
        sync(self.partial)
        self.partial.replace(self.path)
        return Shard(self.path.name, self.documents, self.sentences, self.tokens, hash_file(self.path))


def _offsets(lengths: np.ndarray) -> np.ndarray:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


class LocalShards:
    """The chunks of shards by number, counted through all of them, in memory-mapped files. Raises UserError for a shard
    that cannot be read."""

    def __init__(self, directory: Path, shards: Sequence[Shard]) -> None:
        self._chunks: list[tuple[Path, int]] = []
        self._readers: dict[Path, pa.ipc.RecordBatchFileReader] = {}
        allow_open_files(len(shards))
        for shard in shards:
            path = directory / shard.file
            try:
                self._readers[path] = pa.ipc.open_file(pa.memory_map(str(path)))
            except (OSError, pa.ArrowInvalid) as error:
                raise UserError(
                    f"{path}: the shard cannot be read ({error}); run {command('prepare')} again"
                ) from error
            self._chunks += [(path, index) for index in range(self._readers[path].num_record_batches)]

    def __len__(self) -> int:
        return len(self._chunks)

    def batches(self, indexes: Sequence[int]) -> list[pa.RecordBatch]:
        """The record batches of chunks, in the order asked for."""
        return [self._readers[path].get_batch(batch) for path, batch in (self._chunks[index] for index in indexes)]


class Split:
    """The documents of a store to train on, or those held out of it, read chunk by chunk.

    shards: those of the split. stored: their chunks, in files of this machine or behind a URL.
    """

    def __init__(self, shards: Sequence[Shard], stored: LocalShards | RemoteShards) -> None:
        self.documents = sum(shard.documents for shard in shards)
        self.sentences = sum(shard.sentences for shard in shards)
        self.tokens = sum(shard.tokens for shard in shards)
        self._stored = stored

    @property
    def num_chunks(self) -> int:
        return len(self._stored)

    def chunk(self, index: int) -> Chunk:
        """As `chunks`, of one."""
        return self.chunks([index])[0]

    def chunks(self, indexes: Sequence[int]) -> list[Chunk]:
        """The chunks' arrays, in the order asked for; the tokens are views of mapped files."""
        return [_chunk_of(batch.column(0)) for batch in self._stored.batches(indexes)]


def _chunk_of(documents: pa.ListArray) -> Chunk:
    sentences = documents.values
    return Chunk(
        sentences.values.to_numpy(),
        sentences.offsets.to_numpy().astype(np.int64),
        documents.offsets.to_numpy().astype(np.int64),
    )


class TokenStore:
    """A prepared corpus, opened for reading.

    directory: or the URL of one, of which only what is asked for is read, through the cache (`data/remote_shards.py`).
    Raises UserError where the directory is not a store, or its preparation has not finished.
    """

    def __init__(self, directory: str | Path) -> None:
        self._url = url_of(directory)
        self.directory = local_folder(directory, ("manifest.json", "progress.json", "tokenizer/*"))
        if not self.directory.is_dir():
            raise UserError(f"{directory}: no such token store; make one with {command('prepare')}")
        if not (self.directory / "manifest.json").exists():
            unfinished = (self.directory / "progress.json").exists()
            reason = (
                f"its preparation has not finished; run the same {command('prepare')} again"
                if unfinished
                else f"manifest.json is missing; make one with {command('prepare')}"
            )
            raise UserError(f"{directory}: not a token store: {reason}")
        self.manifest: dict[str, Any] = read_json(self.directory / "manifest.json")
        missing = {"fingerprint", "tokenizer", "vocab_size", "splits", "corpus"} - set(self.manifest)
        if missing:
            raise UserError(f"{directory}: not a token store: its manifest.json lacks {', '.join(sorted(missing))}")
        self.fingerprint: str = self.manifest["fingerprint"]
        self.tokenizer_fingerprint: str = self.manifest["tokenizer"]
        self.vocab_size: int = self.manifest["vocab_size"]

    def __repr__(self) -> str:
        sizes = (f"{self.manifest[name]:,} {name}" for name in ("documents", "sentences", "tokens"))
        return f"TokenStore({as_shown(self.directory)}, {', '.join(sizes)})"

    def split(self, name: SplitName) -> Split:
        """The documents to train on, or the held-out ones (`validation`)."""
        listed = [Shard(**shard) for shard in self.manifest["splits"][name]]
        shards = [shard for shard in listed if shard.documents]
        if self._url is None:
            return Split(shards, LocalShards(self.directory, shards))
        files = [(shard.file, shard.sha256) for shard in shards]
        return Split(shards, RemoteShards(self._url, files, shard_schema(id_dtype(self.vocab_size))))

    def sources_in_words(self) -> str:
        """The text that was prepared: one file by its name, several as so many files of the folder they share."""
        paths = [source["path"] for source in self.manifest.get("recipe", {}).get("sources", [])]
        if len(paths) <= 1:
            return "".join(paths)
        try:
            folder = os.path.commonpath(paths)
        except ValueError:  # absolute and relative ones
            folder = ""
        return f"{len(paths):,} files" + (f" in {folder}" if folder else "")

    def tokenizer(self) -> Tokenizer:
        """The vocabulary that made the store. Raises UserError where the directory holds another one."""
        tokenizer = Tokenizer.load(self.directory / "tokenizer")
        if tokenizer.fingerprint != self.tokenizer_fingerprint:
            raise UserError(
                f"{self.directory}: the vocabulary is another store's: prepared with {self.tokenizer_fingerprint}, "
                f"tokenizer/ holds {tokenizer.fingerprint}"
            )
        return tokenizer


def store_fingerprint(tokenizer: str, splits: dict[str, list[Shard]]) -> str:
    """Sixteen hexadecimal digits over the vocabulary and every shard's bytes."""
    content = [tokenizer, {name: [asdict(shard) for shard in shards] for name, shards in splits.items()}]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def id_dtype(vocab_size: int) -> np.dtype:
    """The narrowest unsigned type that holds every id."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)
