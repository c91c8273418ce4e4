"""Preparation: documents → sentences → ids → token store, in parallel workers, in bounded memory.

The main process reads documents and hands them out in batches of about a megabyte; workers cut sentences and pieces;
the main process writes the results in the order of reading. So the bytes do not depend on the number of workers, and
only a few batches are in memory at a time. After each shard `progress.json` says how many documents are done: a killed
preparation reads past those, without cutting them again, and goes on.
"""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np

from bothways.data.store import Shard, ShardWriter, TokenStore, id_dtype, store_fingerprint
from bothways.errors import UserError, option
from bothways.files import (
    read_json,
    refuse_foreign_files,
    replace_directory,
    require_writable,
    user_errors,
    write_json,
)
from bothways.mirrors import output_folder
from bothways.option_checks import options_from, require_at_least, require_name, require_path, require_type
from bothways.outputs import discard, file_changes, made_otherwise, option_changes, require_apart
from bothways.progress import ByteProgress, DocumentCounts
from bothways.remote_files import local_path, url_of
from bothways.text.corpus import CorpusKeywords, CorpusOptions, CorpusReport, Document, read_documents
from bothways.text.sentences import ENGLISH, require_language, split_sentences
from bothways.text.sources import Sources, resolve_sources, source_records
from bothways.text.tokenizer import VOCABULARY_FILES, Tokenizer

BATCH_CHARACTERS = 1 << 20  # 1 to 2 s of a worker's time, 5 ms to hand over
SHARD_TOKENS = 1 << 24  # what a killed preparation may lose: files of 32 MB with ids of 16 bits
STORE_FILES = ("manifest.json", "progress.json", "tokenizer", "*.arrow")  # what `--overwrite` removes
FIRST_HELD_OUT = 9  # the tenth document: corpora of fewer than ten train on all they have


@dataclasses.dataclass(frozen=True)
class PrepareOptions:
    """How a store is made of its sources.

    corpus: how documents are read. validation: the share of documents that is held out, from 0 to below 1: evenly
    spaced documents, from the tenth on, to six decimals. workers: processes, from 1; None: one a core. language: by
    whose rules sentences are cut, of `SENTENCE_LANGUAGES`.
    Raises UserError for a share or a number out of range, and for other languages.
    """

    corpus: CorpusOptions = dataclasses.field(default_factory=CorpusOptions)
    validation: float = 0.02
    workers: int | None = None
    language: str = ENGLISH

    def __post_init__(self) -> None:
        if not 0 <= self.validation < 1:
            raise UserError(f"{option('validation', self.validation)}: expected a share of the documents, 0 to below 1")
        require_at_least(1, workers=self.workers)
        require_language(self.language)


@dataclasses.dataclass(frozen=True)
class PreparedDocument:
    """A document cut into ids.

    ids: unsigned `[T]`, its S sentences end to end. sentence_lengths: int32 `[S]`. unknown: how many ids are `[UNK]`.
    """

    ids: np.ndarray
    sentence_lengths: np.ndarray
    unknown: int


class PrepareKeywords(CorpusKeywords, total=False):
    """The fields of `PrepareOptions` and of its `CorpusOptions`."""

    validation: float
    workers: int | None
    language: str


def prepare(
    sources: Sources | None = None,
    tokenizer: Tokenizer | str | Path | None = None,
    out: str | Path | None = None,
    options: PrepareOptions | Mapping[str, Any] | None = None,
    *,
    texts: Iterable[str] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    on_progress: Callable[[DocumentCounts, int], None] | None = None,
    **keywords: Unpack[PrepareKeywords],
) -> TokenStore:
    """Write a token store; the same input gives the same bytes whatever the number of workers.

    sources: files, folders, globs or `python-docs:`, one or several. texts: in place of them, texts in memory, each a
    document. tokenizer: what `train_tokenizer` gave, or the directory of a vocabulary or a model. out: the store's
    directory. options: as an object, or as keywords the fields of `PrepareOptions` and of `CorpusOptions`
    (`validation=0.1`, `text_column="body"`, …), which win. overwrite: begin anew where `out` holds another store.
    quiet: nothing on the screen. on_progress: called with how many documents and bytes are done, and the number of
    tokens written, in place of the line on standard error.
    A store that is complete and was made of the same files with the same tokenizer and options is opened as it is.
    Raises UserError for unreadable sources, a store that was made otherwise, an unwritable or full disk.
    """
    require_type("quiet", quiet, bool)
    require_type("overwrite", overwrite, bool)
    options = _with_keywords(options, keywords)
    require_path(out=out)
    tokenizer = _opened(tokenizer)
    if url_of(out) is not None:
        with output_folder(str(out), STORE_FILES, only_ours=overwrite) as folder:
            return prepare(
                sources,
                tokenizer,
                folder,
                options,
                texts=texts,
                overwrite=overwrite,
                quiet=quiet,
                on_progress=on_progress,
            )
    out = local_path(out or "")
    resolved = resolve_sources(() if sources is None else sources, texts)
    require_writable(out)
    if overwrite:
        refuse_foreign_files(out, STORE_FILES)
        require_apart(out, [source.path for source in resolved])
    recipe: dict[str, Any] = {
        "sources": source_records(resolved),
        "tokenizer": tokenizer.fingerprint,
        "options": options.corpus.to_json(),
        "validation": options.validation,
        **({} if options.language == ENGLISH else {"language": options.language}),
    }
    if not overwrite and (out / "manifest.json").exists():
        return _finished(out, recipe)
    state = {} if overwrite else _progress(out, recipe)
    report = CorpusReport()
    documents = itertools.islice(
        enumerate(read_documents(resolved, options.corpus, report)), state.get("documents", 0), None
    )
    found = _prepare_all(documents, tokenizer, options)
    share = Fraction(options.validation).limit_denominator(1_000_000)
    with ByteProgress("prepare", sum(source.size for source in resolved), shown=not quiet) as progress:
        progress.wait("prepare  opening the text …")
        tell = on_progress or progress.update
        first = list(itertools.islice(found, 1))  # before anything is written or removed: most mistakes show here
        if not first and not state:
            raise UserError(report.no_text_message([source.name for source in resolved]))
        if overwrite:
            discard(out, STORE_FILES)
        writer = StoreWriter(out, recipe, tokenizer, state)
        for number, prepared in itertools.chain(first, found):
            writer.add(prepared, "validation" if _held_out(number, share) else "train")
            tell(_Done.of(report, writer.documents), writer.tokens)
        store = writer.finish(report)
        for line in report.lines():
            progress.say(line)
    return store


def _with_keywords(options: PrepareOptions | Mapping[str, Any] | None, keywords: Mapping[str, Any]) -> PrepareOptions:
    """The options with what the keywords say. Raises UserError for a name or a type that there is not."""
    if isinstance(options, Mapping):
        keywords, options = {**options, **keywords}, None
    own = {"validation", "workers", "language"}
    of_store = {name: value for name, value in keywords.items() if name in own}
    of_corpus = {name: value for name, value in keywords.items() if name not in own}
    for name in of_corpus:
        require_name("prepare", name, [*own, *(field.name for field in dataclasses.fields(CorpusOptions))])
    start = options_from(PrepareOptions, "prepare", options, of_store)
    return dataclasses.replace(start, corpus=options_from(CorpusOptions, "prepare", start.corpus, of_corpus))


def _opened(tokenizer: Tokenizer | str | Path | None) -> Tokenizer:
    if isinstance(tokenizer, Tokenizer):
        return tokenizer
    require_path(tokenizer=tokenizer)
    return Tokenizer.load(tokenizer or "")


class _Done(NamedTuple):
    """How much of a corpus is written. Reading is ahead of that by what waits for the workers, often all of it."""

    documents: int
    bytes_read: int

    @classmethod
    def of(cls, report: CorpusReport, documents: int) -> _Done:
        """So many of the documents that are read, and their share of the bytes."""
        return cls(documents, report.bytes_read * documents // max(documents, report.documents))


def _held_out(number: int, share: Fraction) -> bool:
    """Whether a document, counted from 0, is held out: of those from the tenth on their share, the tenth first."""
    later = number - FIRST_HELD_OUT
    return later >= 0 and ceil((later + 1) * share) > ceil(later * share)


def _finished(out: Path, recipe: dict[str, Any]) -> TokenStore:
    store = TokenStore(out)
    _require_same(out, store.manifest["recipe"], recipe)
    return store


def _progress(out: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """What a preparation that was stopped had done; empty where that is nothing, however it was begun."""
    path = out / "progress.json"
    state = read_json(path) if path.exists() else {}
    if not state.get("documents"):
        return {}
    _require_same(out, state["recipe"], recipe)
    return state


def _require_same(out: Path, there: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raise UserError where a store's recipe is not the one asked for."""
    changes = file_changes(there.get("sources", []), asked["sources"])
    if there.get("tokenizer") != asked["tokenizer"]:
        changes.append("the vocabulary is another")
    defaults = dataclasses.asdict(CorpusOptions())
    changes += option_changes({**defaults, **there.get("options", {})}, {**defaults, **asked["options"]})
    before, now = ({"language": ENGLISH, **recipe} for recipe in (there, asked))
    changes += option_changes(before, {name: now[name] for name in ("validation", "language")})
    if changes:
        raise made_otherwise(out, "a store", changes)


class StoreWriter:
    """Writes both splits shard by shard, and after each shard what is done, so that a killed preparation goes on.

    Raises UserError where the directory holds something else, or cannot be written.
    """

    def __init__(self, out: Path, recipe: dict[str, Any], tokenizer: Tokenizer, state: dict[str, Any]) -> None:
        """state: what progress.json has of an earlier process that was stopped; empty: there was none."""
        self.out, self.recipe, self.tokenizer = out, recipe, tokenizer
        splits = state.get("splits", {"train": [], "validation": []})
        self.splits: dict[str, list[Shard]] = {name: [Shard(**shard) for shard in splits[name]] for name in splits}
        self.documents, self.unknown, self.empty = (state.get(name, 0) for name in ("documents", "unknown", "empty"))
        self.tokens = sum(shard.tokens for shards in self.splits.values() for shard in shards)
        refuse_foreign_files(out / "tokenizer", VOCABULARY_FILES)
        with replace_directory(out / "tokenizer") as directory:
            tokenizer.save(directory)
        self._save_progress()
        self._open()

    def _open(self) -> None:
        number, dtype = len(self.splits["train"]), id_dtype(self.tokenizer.vocab_size)
        with user_errors(self.out):
            self._writers = {name: ShardWriter(self.out / f"{name}-{number:05d}.arrow", dtype) for name in self.splits}
        self._shard_tokens = 0

    def add(self, document: PreparedDocument, split: str) -> None:
        """Write a document, or count it where it has no words."""
        self.documents += 1
        if not len(document.ids):
            self.empty += 1
            return
        with user_errors(self.out):
            self._writers[split].add(document.ids, document.sentence_lengths)
        self.tokens += len(document.ids)
        self.unknown += document.unknown
        self._shard_tokens += len(document.ids)
        if self._shard_tokens >= SHARD_TOKENS:
            self._close_shards()
            self._open()

    def _close_shards(self) -> None:
        with user_errors(self.out):
            for name, writer in self._writers.items():
                self.splits[name].append(writer.close())
        self._save_progress()

    def _save_progress(self) -> None:
        state = {"documents": self.documents, "unknown": self.unknown, "empty": self.empty, "recipe": self.recipe}
        write_json(self.out / "progress.json", {**state, "splits": self._splits_json()})

    def _splits_json(self) -> dict[str, list[dict[str, Any]]]:
        return {name: [dataclasses.asdict(shard) for shard in shards] for name, shards in self.splits.items()}

    def finish(self, report: CorpusReport) -> TokenStore:
        """Write the manifest, which makes the store complete. Raises UserError where there was not a word."""
        self._close_shards()
        if not self.tokens:
            (self.out / "progress.json").unlink()
            raise UserError(report.no_text_message([source["path"] for source in self.recipe["sources"]]))
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
            "unknown_tokens": self.unknown,
            "corpus": report.to_dict(),
            "recipe": self.recipe,
            "splits": self._splits_json(),
        }
        write_json(self.out / "manifest.json", manifest)
        (self.out / "progress.json").unlink()
        return TokenStore(self.out)


def _prepare_all(
    documents: Iterator[tuple[int, Document]], tokenizer: Tokenizer, options: PrepareOptions
) -> Iterator[tuple[int, PreparedDocument]]:
    """Prepare every document, in order; a small corpus is done here, before a worker process would have started."""
    workers, language = options.workers or os.cpu_count() or 1, options.language
    batches = _batches(documents)
    first = list(itertools.islice(batches, 2))
    if workers == 1 or len(first) < 2:
        for batch in itertools.chain(first, batches):
            yield from _with_numbers(batch, _prepare_batch(tokenizer, [document for _, document in batch], language))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (tokenizer.to_json(), language)) as pool:
        waiting: deque[tuple[list[tuple[int, Document]], Future[list[PreparedDocument]]]] = deque()
        try:
            for batch in itertools.chain(first, batches):
                waiting.append((batch, pool.submit(_work, [document for _, document in batch])))
                if len(waiting) > 2 * workers:  # enough for every worker to find a batch when it ends one
                    done, future = waiting.popleft()
                    yield from _with_numbers(done, future.result())
            while waiting:
                done, future = waiting.popleft()
                yield from _with_numbers(done, future.result())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _with_numbers(
    batch: list[tuple[int, Document]], prepared: list[PreparedDocument]
) -> Iterator[tuple[int, PreparedDocument]]:
    return zip((number for number, _ in batch), prepared, strict=True)


def _batches(documents: Iterable[tuple[int, Document]]) -> Iterator[list[tuple[int, Document]]]:
    batch: list[tuple[int, Document]] = []
    characters = 0
    for number, document in documents:
        batch.append((number, document))
        characters += len(document.text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _prepare_batch(tokenizer: Tokenizer, documents: list[Document], language: str) -> list[PreparedDocument]:
    sentences = [split_sentences(document, language) for document in documents]
    ids = iter(tokenizer.encode_ids([sentence for group in sentences for sentence in group]))
    prepared = []
    for group in sentences:
        pieces = [piece for piece in itertools.islice(ids, len(group)) if piece]
        flat = np.fromiter(itertools.chain.from_iterable(pieces), id_dtype(tokenizer.vocab_size))
        lengths = np.array([len(piece) for piece in pieces], dtype=np.int32)
        prepared.append(PreparedDocument(flat, lengths, int((flat == tokenizer.unk_id).sum())))
    return prepared


_worker_tokenizer: Tokenizer  # each worker process has one
_worker_language: str


def _start_worker(tokenizer_json: str, language: str) -> None:
    global _worker_tokenizer, _worker_language
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _worker_tokenizer = Tokenizer.from_json(tokenizer_json)
    _worker_language = language


def _work(documents: list[Document]) -> list[PreparedDocument]:
    return _prepare_batch(_worker_tokenizer, documents, _worker_language)
