"""A token store in parts: sources cut into extents of about `PART_BYTES`, each part's documents as ids, and the join.

The folder of parts (`parts.py`) holds all that a part depends on: the manifest says which files and which bytes of
them, and `tokenizer.json` is the vocabulary. So a process that has the folder makes any of the parts. A part is a file
like a shard, with all its documents, those without words as well; the join numbers them through, parts them into
splits, and cuts shards and chunks anew: the store has the same bytes whatever the parts are.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from bothways.data.documents import PreparedDocument, prepare_documents
from bothways.data.store import ShardWriter, TokenStore, id_dtype
from bothways.data.store_writer import NoTextError, StoreWriter, is_held_out, new_store, stored_documents
from bothways.errors import UserError
from bothways.files import read_json
from bothways.outputs import begin_anew
from bothways.parts import TOKENIZER, Changes, Parts
from bothways.progress import DocumentCounts, OnProgress, no_progress
from bothways.remote_files import local_file, url_of
from bothways.shared_parts import SharedParts
from bothways.text.corpus import CorpusOptions, Document, SourceExtent, read_extents
from bothways.text.corpus_extents import cut_source
from bothways.text.corpus_report import CorpusReport
from bothways.text.csv_records import CsvDialect
from bothways.text.extents import Extent
from bothways.text.sentences import ENGLISH
from bothways.text.sources import Source
from bothways.text.tokenizer import Tokenizer

PART_BYTES = 1 << 24  # 5 to 10 s of a core, which is what a kill costs; 60,000 parts for a terabyte
OnDocuments = Callable[[DocumentCounts, int], None]


class StoreParts:
    """The parts of the store `out`.

    overwrite: begin anew. command: by which a person makes the parts. trust: files that the manifest has already are
    known again by their names and sizes, and not read. url: of the store, where its parts are behind that as well
    (`SharedParts`). recipe: all that the store depends on, as its manifest has it.
    """

    def __init__(
        self,
        out: Path,
        *,
        overwrite: bool = False,
        command: Sequence[str] = (),
        trust: bool = False,
        url: str | None = None,
    ) -> None:
        self.out, self.overwrite = out, overwrite
        self._command, self._trust = command, trust
        if url is None:
            self.parts = Parts(out, suffix=".arrow", overwrite=overwrite)
        else:
            self.parts = SharedParts(url, out, suffix=".arrow", overwrite=overwrite)
        self._sources: Sequence[Source] = ()  # as they were given to this process, if it was

    @property
    def recipe(self) -> dict[str, Any]:
        recipe: dict[str, Any] = self.parts.manifest["job"]
        return recipe

    def begin(
        self,
        recipe: Mapping[str, Any],
        sources: Sequence[Source],
        tokenizer: Tokenizer,
        options: CorpusOptions,
        changes: Changes,
    ) -> None:
        """Find the parts that are there, or cut the sources. changes: how two recipes differ, in words. Raises
        UserError as `Parts.open` does."""
        self._sources = sources
        self.parts.open(recipe, lambda: _cut(sources, options, self._command), changes)
        self.parts.keep_tokenizer(tokenizer.to_json())

    def known_sources(self) -> list[dict[str, Any]]:
        """What the manifest has of sources that are trusted to be the same."""
        if not self._trust or self.overwrite or not self.parts.has_manifest():
            return []
        self.parts.load()
        records: list[dict[str, Any]] = self.recipe["sources"]
        return records

    @classmethod
    def load(cls, out: Path, url: str | None = None) -> StoreParts:
        """The parts of a store that another process has begun. Raises UserError where there are none."""
        store = cls(out, url=url)
        store.parts.load()
        return store

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary of the parts. Raises UserError where it is missing, or another's, as one that a process of an
        earlier job put there at the moment when this one began."""
        path = self.parts.folder / TOKENIZER
        read_json(path)
        tokenizer = Tokenizer.from_json(path.read_text(encoding="utf-8"))
        if tokenizer.fingerprint != self.recipe["tokenizer"]:
            raise UserError(f"{path}: is not the vocabulary that the parts were begun with; {begin_anew()}")
        return tokenizer

    @property
    def bytes_(self) -> int:
        """Of all sources."""
        return sum(source["size"] for source in self.recipe["sources"])

    def size_of(self, numbers: Sequence[int]) -> int:
        """The bytes of text of some parts, about."""
        return sum(_size(wanted) for number in numbers for wanted in self._extents(number))

    def _extents(self, number: int) -> list[SourceExtent]:
        """What a part is made of. Raises UserError where a file is not as large as it was."""
        manifest, recorded = self.parts.manifest, self.recipe["sources"]
        found = []
        for entry in manifest["parts"][number - 1]:
            index = entry["source"]
            record, path = recorded[index], manifest["files"][index]
            folder, others = manifest["others"].get(str(index), ("", ()))
            dialect = manifest["dialects"].get(str(index))
            source = Source(record["path"], path and Path(path), record["size"], folder, tuple(map(tuple, others)))
            if self._sources:  # the same contents, which may have moved
                source = dataclasses.replace(source, path=self._sources[index].path, texts=self._sources[index].texts)
            elif url_of(source.name) is not None and source.path is not None and not source.path.exists():
                source = dataclasses.replace(source, path=_copy_of(source.name))  # another machine has cut it
            extent = Extent.from_json(entry.get("extent", {}))
            found.append(SourceExtent(source, extent, dialect and CsvDialect(**dialect)))
        return found

    def _documents(self, numbers: Sequence[int], reports: dict[int, CorpusReport]) -> Iterator[tuple[int, Document]]:
        """The documents of parts, each with the number of its part. reports: gets one for each part."""
        options = CorpusOptions(**self.recipe["options"])
        for number in numbers:
            report = reports[number] = CorpusReport()
            extents = self._extents(number)
            for source in {wanted.source.name: wanted.source for wanted in extents}.values():
                _require_unchanged(source)
            for document in read_extents(extents, options, report):
                yield number, document

    def make(self, numbers: Sequence[int], workers: int | None, on_documents: OnDocuments) -> None:
        """Make parts, in order. workers: processes; None: one a core. on_documents: called with what is done of them,
        documents and bytes, and the number of tokens. Raises UserError for what cannot be read."""
        tokenizer, reports = self.tokenizer, dict[int, CorpusReport]()
        language, dtype = self.recipe.get("language", ENGLISH), id_dtype(tokenizer.vocab_size)
        documents = _Grouped(prepare_documents(self._documents(numbers, reports), tokenizer, language, workers))
        done = _Done(0, 0, 0)
        for number in numbers:

            def write(path: Path, number: int = number) -> dict[str, Any]:
                nonlocal done
                before, read, unknown = done, 0, 0
                writer = ShardWriter(path, dtype)
                for read, document in enumerate(documents.group(number), 1):
                    writer.add(document.ids, document.sentence_lengths)
                    unknown += document.unknown
                    done = before.plus(reports[number], read, writer.tokens_added)
                    on_documents(done, done.tokens)
                writer.close()
                report = reports.pop(number)
                done = before.plus(report, read, writer.tokens)
                return {"documents": read, "tokens": writer.tokens, "unknown": unknown, "report": report.to_dict()}

            self.parts.write(number, write)

    def join(self, on_documents: OnProgress = no_progress) -> TokenStore:
        """Make the store of all parts, and remove them. on_documents: called with how many are written.

        Raises UserError where a part is missing, there is not a word in any, or `out` holds something else."""
        results, report, unknown = self.parts.results(), CorpusReport(), 0
        for marker in self.parts.markers():
            report.merge(CorpusReport.from_dict(marker["report"]))
            unknown += marker["unknown"]
        share = Fraction(self.recipe["validation"]).limit_denominator(1_000_000)
        try:
            with new_store(self.out, self.parts.folder) as directory:
                writer = StoreWriter(directory, self.recipe, self.tokenizer)
                for number, (ids, sentence_lengths) in enumerate(stored_documents(results)):
                    writer.add(ids, sentence_lengths, "validation" if is_held_out(number, share) else "train")
                    on_documents(number + 1)
                writer.finish(report, unknown)
        except NoTextError:
            self.parts.remove()
            raise
        self.parts.finish()
        return TokenStore(self.out)


def open_store_parts(out: Path, url: str | None = None) -> Callable[[int], int]:
    """What makes a part of a store by its number in this process, and returns how many documents it has."""
    store = StoreParts.load(out, url)

    def make(number: int) -> int:
        store.make([number], 1, lambda done, tokens: None)
        documents: int = store.parts.marker(number)["documents"]
        return documents

    return make


class _Grouped:
    """Numbered documents, a number at a time."""

    def __init__(self, documents: Iterator[tuple[int, PreparedDocument]]) -> None:
        self._documents = documents
        self._next = next(documents, None)

    def group(self, number: int) -> Iterator[PreparedDocument]:
        """The documents of a number, which no document before them has a higher one of."""
        while self._next is not None and self._next[0] == number:
            document = self._next[1]
            self._next = next(self._documents, None)
            yield document


class _Done(NamedTuple):
    """How much of a corpus is written. Reading is ahead of that by what waits for the workers, often all of it."""

    documents: int
    bytes_read: int
    tokens: int

    def plus(self, report: CorpusReport, documents: int, tokens: int) -> _Done:
        """With so many of the documents of a part that are read, and their share of the bytes."""
        read = report.bytes_read * documents // max(documents, report.documents, 1)
        return _Done(self.documents + documents, self.bytes_read + read, self.tokens + tokens)


def _cut(sources: Sequence[Source], options: CorpusOptions, command: Sequence[str]) -> dict[str, Any]:
    """The manifest's content beside the recipe: files, how tables of text are read, and the extents of each part."""
    parts: list[list[dict[str, Any]]] = []
    dialects = {}
    room = 0
    for index, source in enumerate(sources):
        try:
            extents = cut_source(source, options, PART_BYTES)
        except OSError as error:
            raise UserError(f"{source.name}: cannot be read: {error.strerror or error}") from error
        for wanted in extents:
            if wanted.dialect is not None:
                dialects[str(index)] = dataclasses.asdict(wanted.dialect)
            if room <= 0:
                parts.append([])
                room = PART_BYTES
            extent = wanted.extent.to_json()
            parts[-1].append({"source": index, **({"extent": extent} if extent else {})})
            room -= _size(wanted)
    return {
        "kind": "store",
        "command": list(command),
        "files": [None if source.path is None else str(source.path.absolute()) for source in sources],
        "others": {str(n): [source.folder, source.others] for n, source in enumerate(sources) if source.others},
        "dialects": dialects,
        "parts": parts,
    }


@functools.cache
def _copy_of(url: str) -> Path:
    """This machine's copy of a source behind a URL."""
    return local_file(url)


def _size(wanted: SourceExtent) -> int:
    """The bytes of an extent of a source; of rows, what a full extent has in memory."""
    extent = wanted.extent
    if extent.by_rows:
        return PART_BYTES
    return wanted.source.size if extent.end is None else extent.end - extent.start


def _require_unchanged(source: Source) -> None:
    """Raises UserError where a file has gone, or has another size than when it was cut."""
    if source.path is None:
        return
    try:
        size = source.path.stat().st_size
    except OSError as error:
        raise UserError(f"{source.path}: cannot be read: {error.strerror or error}") from error
    if size != source.size:
        raise UserError(
            f"{source.path}: has changed since the parts were cut: {source.size:,} bytes then, now {size:,}"
        )
