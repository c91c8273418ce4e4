"""Documents from files: txt, md, json, jsonl, csv, tsv, parquet, .gz and .zst of them, folders, globs, `python-docs:`.

Streaming: a line at a time, so memory does not grow with the corpus. What cannot be read stops the reading with the
file, the line and the fix; with `skip_bad` it is left out and counted instead. Nothing is left out uncounted.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, TypedDict

from bothways.errors import UserError, closest, option
from bothways.text import python_docs
from bothways.text.corpus_report import CorpusReport
from bothways.text.csv_records import CsvDialect
from bothways.text.encodings import UTF8, checked_encoding
from bothways.text.extents import WHOLE, Extent, extent_stream
from bothways.text.json_rows import WHOLE_FILE_CHARACTERS, read_json_rows
from bothways.text.lines import Fault, Lines, binary_fault, damage_of, encoding_remarks, is_unicode, utf8_bytes
from bothways.text.sources import Source, packages
from bothways.text.table_reader import TABLE_SUFFIXES, TableReader, TableReaderOptions, TableRow

# A row may hold a text of megabytes, and Arrow has a batch of them in memory. Smaller batches are read no slower.
PARQUET_BATCH_ROWS = 64
_FRONT_MATTER = re.compile(r"\A---\n(?:[\w-]+:.*\n|[ \t-].*\n)*---[ \t]*\n")  # the YAML that many tools put first


@dataclass(frozen=True)
class Document:
    """A text of its own. source: `file:line` where it begins, of .json `file:` and the number of the row.
    one_sentence_a_line: its lines are sentences already."""

    text: str
    source: str
    one_sentence_a_line: bool = False


@dataclass(frozen=True)
class CorpusOptions:
    """How sources are read.

    text_column: of json, jsonl, csv and parquet. documents: a .txt is one document ("file"), or holds several, with
    blank lines between them and one sentence a line, as BERT's own input format has it ("blank-line"). skip_bad: leave
    out and count what cannot be read. max_line_characters: a longer line cannot be read. max_document_characters: a
    longer document is cut into several, after a blank line or else after a line. encoding: of files that are not UTF-8.
    Raises UserError for other values.
    """

    text_column: str = "text"
    documents: Literal["file", "blank-line"] = "file"
    skip_bad: bool = False
    max_line_characters: int = 4_000_000
    max_document_characters: int = 1_000_000
    encoding: str = UTF8

    def __post_init__(self) -> None:
        if self.documents not in ("file", "blank-line"):
            raise UserError(f"documents {self.documents!r}: expected 'file' or 'blank-line'")
        for name in ("max_line_characters", "max_document_characters"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)}: expected a number of characters, 1 or more")
        checked_encoding(self.encoding)

    def to_json(self) -> dict[str, Any]:
        """The options as a store's manifest has them: of stores from before there were encodings, none."""
        options = asdict(self)
        if self.encoding == UTF8:
            del options["encoding"]
        return options


class CorpusKeywords(TypedDict, total=False):
    """The fields of `CorpusOptions`, as keywords of Python's functions."""

    text_column: str
    documents: Literal["file", "blank-line"]
    skip_bad: bool
    max_line_characters: int
    max_document_characters: int
    encoding: str


class SourceExtent(NamedTuple):
    """A source, or an extent of its file. dialect: of a .csv or .tsv of which it is an extent."""

    source: Source
    extent: Extent = WHOLE
    dialect: CsvDialect | None = None


def read_documents(sources: Sequence[Source], options: CorpusOptions, report: CorpusReport) -> Iterator[Document]:
    """Yields every document of every source, in order, as `read_extents` does."""
    return read_extents(map(SourceExtent, sources), options, report)


def read_extents(extents: Iterable[SourceExtent], options: CorpusOptions, report: CorpusReport) -> Iterator[Document]:
    """Yields every document of some extents, in order; what is left out is counted in the report. The extents of a file
    give the documents, and reports to merge, that the file gives.

    Raises UserError, unless `skip_bad`: undecodable bytes, a binary or damaged file, a malformed line, a line longer
    than `max_line_characters`, a value that is no text. A missing column is always an error.
    """
    for wanted in extents:
        source = wanted.source
        for suffix, count in source.others if wanted.extent.first else ():
            report.count(source.folder, 0, f"{suffix} suffix, not read", count)
        reader = _Reader(wanted, options, report)
        for document in reader.documents():
            left_out, reader.left_out = reader.left_out, 0
            if not document.text or document.text.isspace():
                if not left_out:  # else what it had is counted already
                    report.count(source.name, reader.first_line, "empty document")
                continue
            report.documents += 1
            report.characters += len(document.text)
            yield document


class _Reader:
    """Reads one source, or an extent of it. line: where the reading is, from 1; of Python's documentation the number of
    the module. first_line: of the document at hand. left_out: how many faults were left out."""

    def __init__(self, wanted: SourceExtent, options: CorpusOptions, report: CorpusReport) -> None:
        self.source, self.extent, self.dialect = wanted
        self.options, self.report = options, report
        self.line = self.first_line = self.left_out = 0

    def documents(self) -> Iterator[Document]:
        if self.source.texts is not None:
            yield from self._texts_in_memory(self.source.texts)
            return
        if self.source.path is None:
            yield from self._python_docs()
            return
        before = self.report.bytes_read
        try:
            if self.source.size == 0:
                self.report.count(self.source.name, 1, "empty file")
            elif self.source.kind in TABLE_SUFFIXES:
                yield from self._table(self.source.path)
            else:
                yield from self._text(self.source.path)
        except OSError as error:
            raise UserError(f"{self.source.name}: cannot be read: {error.strerror or error}") from error
        if not self.extent.by_rows:
            end = self.source.size if self.extent.end is None else self.extent.end
            self.report.bytes_read = before + end - self.extent.start

    def leave_out(self, fault: Fault) -> None:
        """Count a fault where `skip_bad` says so, or else raise it as a UserError."""
        if not self.options.skip_bad:
            place = f"{self.source.name}:{fault.line}" if fault.line else self.source.name
            cure = f"{option('skip_bad', True)} leaves such text out and counts it"
            raise UserError(f"{place}: {fault.reason}: {fault.detail}; {cure}")
        self.report.count(self.source.name, fault.line, fault.reason)
        self.left_out += 1

    def _text(self, path: Path) -> Iterator[Document]:
        readers: dict[str, Callable[[Lines], Iterator[Document]]] = {
            ".txt": self._blank_line_documents if self.options.documents == "blank-line" else self._one_document,
            ".md": self._markdown,
            ".json": self._json,
        }
        limit = WHOLE_FILE_CHARACTERS if self.source.kind == ".json" else self.options.max_line_characters
        before = self.report.bytes_read
        lines = None
        with path.open("rb") as raw:
            if not self.extent.is_whole:
                with extent_stream(raw, self.extent) as stream:
                    for document in readers[self.source.kind](Lines(stream, limit, first_line=self.extent.line)):
                        self.report.bytes_read = before + raw.tell() - self.extent.start
                        yield document
                return
            try:
                with utf8_bytes(raw, path, self.options.encoding) as stream:
                    self._say(encoding_remarks(stream))
                    if fault := binary_fault(stream):
                        self.leave_out(fault)
                        return
                    lines = Lines(stream, limit)
                    for document in readers[self.source.kind](lines):
                        self.report.bytes_read = before + raw.tell()
                        yield document
            except OSError as error:
                self.leave_out(damage_of(error, lines))

    def _table(self, path: Path) -> Iterator[Document]:
        before, limit = self.report.bytes_read, self.options.max_line_characters
        columns = (self.options.text_column,)
        options = TableReaderOptions(limit, limit, False, columns, PARQUET_BATCH_ROWS, encoding=self.options.encoding)
        reader = TableReader(path, replace(options, extent=self.extent, dialect=self.dialect))
        for row in reader.rows():
            self.line = row.line
            self.report.bytes_read = before + reader.bytes_read
            if isinstance(row, Fault):
                self.leave_out(row)
            else:
                yield from self._row(row)
        if self.extent.last:
            self._say(reader.remarks)

    def _say(self, remarks: Iterable[str]) -> None:
        for remark in remarks:
            self.report.count(self.source.name, 0, remark, 0)

    def _readable(self, lines: Lines) -> Iterator[tuple[int, str]]:
        """The lines that can be read, with their numbers."""
        for line in lines:
            self.line = lines.number
            if fault := lines.take_fault():
                self.leave_out(fault)
            else:
                yield self.line, line

    def _texts(self, lines: Iterable[tuple[int, str]], last: bool = True) -> Iterator[tuple[int, str]]:
        """Numbered lines joined into texts of at most `max_document_characters`, each with its first line's number.

        A text is cut after its last blank line, or where there is none after its last line. last: whether the document
        ends with the lines.
        """
        held: list[str] = []
        characters = blank = 0  # blank: how many of the held lines there are up to the last blank line
        first = after_blank = 1
        for number, line in lines:
            while held and characters + len(line) > self.options.max_document_characters:
                self.report.count(self.source.name, first, "long document cut into several")
                at = blank or len(held)
                yield first, "".join(held[:at])
                first, held, blank = after_blank if blank else number, held[at:], 0
                characters = sum(map(len, held))
            if not held:
                first = number
            elif blank == len(held):
                after_blank = number
            held.append(line)
            characters += len(line)
            if line.isspace():
                blank = len(held)
        if not last:
            self.report.count(self.source.name, first, "long document cut into several")
        yield first, "".join(held)

    def _one_document(self, lines: Lines) -> Iterator[Document]:
        for first, text in self._texts(self._readable(lines), self.extent.last):
            self.first_line = first
            yield Document(text, f"{self.source.name}:{first}")

    def _blank_line_documents(self, lines: Lines) -> Iterator[Document]:
        for is_blank, group in itertools.groupby(self._readable(lines), key=lambda numbered: not numbered[1].strip()):
            if not is_blank:
                for first, text in self._texts(group):
                    yield Document(text, f"{self.source.name}:{first}", True)

    def _markdown(self, lines: Lines) -> Iterator[Document]:
        for first, text in self._texts(self._readable(lines), self.extent.last):
            self.first_line = first
            yield Document(_plain_text(text), f"{self.source.name}:{first}")

    def _json(self, lines: Lines) -> Iterator[Document]:
        """The rows, by their number."""
        text = [line for _, line in self._readable(lines)]
        self.line = 0
        try:
            for values, _ in read_json_rows(Path(self.source.name), text):
                self.line += 1
                if isinstance(values, str):
                    self.leave_out(Fault(self.line, "no row", values))
                else:
                    yield from self._row(TableRow(values, self.line))
        except UserError as error:
            if not self.options.skip_bad:
                raise
            self.leave_out(Fault(0, "not readable JSON", str(error)))

    def _row(self, row: TableRow) -> Iterator[Document]:
        column, limit = self.options.text_column, self.options.max_line_characters
        self.first_line, self.left_out = row.line, 0  # what was left out before are other rows
        if column not in row.values:
            self._no_column(list(row.values))
        text = row.values[column]
        if text is None:
            text = ""
        if not isinstance(text, str):
            self.leave_out(Fault(row.line, f"column {column!r} is not text", repr(text)[:40]))
        elif not is_unicode(text):
            self.leave_out(Fault(row.line, "half a surrogate pair", "the text is not valid Unicode"))
        elif len(text) <= self.options.max_document_characters:
            yield Document(text, f"{self.source.name}:{row.line}")
        else:
            lines = text.splitlines(keepends=True)
            if max(map(len, lines)) > limit:
                detail = f"more than {limit:,} characters in column {column!r}"
                self.leave_out(Fault(row.line, "line too long", detail))
                return
            for _, part in self._texts((row.line, line) for line in lines):
                yield Document(part, f"{self.source.name}:{row.line}")

    def _no_column(self, present: Sequence[str]) -> NoReturn:
        raise UserError(
            f"{self.source.name}:{max(self.line, 1)}: no column {self.options.text_column!r}"
            f"{closest(self.options.text_column, present)}; columns present: {', '.join(present) or 'none'} "
            f"({option('text_column')} names one)"
        )

    def _texts_in_memory(self, texts: Sequence[Any]) -> Iterator[Document]:
        for text in texts:
            self.line += 1
            self.report.bytes_read += len(text) if isinstance(text, str) else 0
            yield from self._row(TableRow({self.options.text_column: text}, self.line))

    def _python_docs(self) -> Iterator[Document]:
        for module in python_docs.modules(packages(self.source.name)):
            self.line += 1
            self.report.bytes_read += module.size
            if module.problem:
                self.report.count(self.source.name, self.line, module.problem)
            elif module.text:
                yield Document(module.text, str(module.path))


def _plain_text(markdown: str) -> str:
    """The prose of a Markdown text: paragraphs, headings, list items, table cells; no code blocks, no markup."""
    from markdown_it import MarkdownIt

    paragraphs = []
    for token in MarkdownIt("commonmark").enable("table").parse(_FRONT_MATTER.sub("", markdown)):
        if token.type == "inline":
            spans = [span for span in token.children or [] if span.type != "html_inline"]
            paragraphs.append("".join(" " if span.type.endswith("break") else span.content for span in spans))
    return "\n\n".join(paragraphs)
