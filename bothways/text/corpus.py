"""Documents from files: txt, md, jsonl, csv, tsv, parquet, .gz and .zst of them, folders, globs, `python-docs:`.

Streaming: a line at a time, so memory does not grow with the corpus. What cannot be read stops the reading with the
file, the line and the fix; with `skip_bad` it is left out and counted instead. Nothing is left out uncounted.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from bothways.errors import UserError, closest
from bothways.text import python_docs
from bothways.text.lines import Lines, decompressed, is_unicode, next_row
from bothways.text.sources import Source, packages, resolve_sources

__all__ = ["CorpusOptions", "CorpusReport", "Document", "Source", "read_documents", "resolve_sources"]

BINARY_SAMPLE = 8192  # bytes in which a NUL byte tells a binary file
_FRONT_MATTER = re.compile(r"\A---\n(?:[\w-]+:.*\n|[ \t-].*\n)*---[ \t]*\n")  # the YAML that many tools put first


@dataclass(frozen=True)
class Document:
    """source: `file:line` where it begins. one_sentence_a_line: its lines are sentences already."""

    text: str
    source: str
    one_sentence_a_line: bool = False


@dataclass(frozen=True)
class CorpusOptions:
    """text_column: of jsonl, csv and parquet. documents: a .txt is one document, or several parted by blank lines with
    one sentence a line, BERT's own input format. max_line_characters: a longer line cannot be read.
    max_document_characters: a longer document is cut into several, after a blank line or else after a line."""

    text_column: str = "text"
    documents: Literal["file", "blank-line"] = "file"
    skip_bad: bool = False
    max_line_characters: int = 4_000_000
    max_document_characters: int = 1_000_000

    def __post_init__(self) -> None:
        if self.documents not in ("file", "blank-line"):
            raise UserError(f"documents {self.documents!r}: expected 'file' or 'blank-line'")
        for name in ("max_line_characters", "max_document_characters"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)}: expected a number of characters, 1 or more")


@dataclass
class CorpusReport:
    """What was read, and by file what was left out and why: file → reason → (how often, first line)."""

    documents: int = 0
    characters: int = 0
    bytes_read: int = 0
    remarks: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)

    def remark(self, file: str, line: int, reason: str, count: int = 1) -> None:
        """Count something; line 0 where a line means nothing."""
        reasons = self.remarks.setdefault(file, {})
        before, first = reasons.get(reason, (0, line))
        reasons[reason] = (before + count, first)

    def merge(self, later: CorpusReport) -> None:
        """Add what another report counted."""
        self.documents += later.documents
        self.characters += later.characters
        self.bytes_read += later.bytes_read
        for file, reasons in later.remarks.items():
            for reason, (count, line) in reasons.items():
                self.remark(file, line, reason, count)

    def lines(self, limit: int = 20) -> list[str]:
        """For the terminal: a line a file and reason, the first `limit`, and how many more there are."""
        every = [
            f"{file}: {reason}: {count:,}" + (f" (first at line {line:,})" if line else "")
            for file, reasons in self.remarks.items()
            for reason, (count, line) in reasons.items()
        ]
        return every[:limit] + ([f"… and {len(every) - limit:,} more remarks"] if len(every) > limit else [])

    def why_nothing(self, sources: Sequence[str]) -> str:
        """The message for a corpus without a single document."""
        reasons = "; ".join(self.lines(3))
        return f"{', '.join(sources[:3])}: no text in {'it' if len(sources) == 1 else 'them'}" + (
            f" ({reasons})" if reasons else ""
        )

    def to_dict(self) -> dict[str, Any]:
        return {"documents": self.documents, "characters": self.characters, "remarks": self.remarks}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CorpusReport:
        remarks = {
            file: {reason: (count, line) for reason, (count, line) in reasons.items()}
            for file, reasons in values["remarks"].items()
        }
        return cls(values["documents"], values["characters"], 0, remarks)


def read_documents(sources: Sequence[Source], options: CorpusOptions, report: CorpusReport) -> Iterator[Document]:
    """Every document of every source, in order; what is left out is counted in the report.

    Raises UserError, unless `skip_bad`: undecodable bytes, a binary or damaged file, a malformed line, a line longer
    than `max_line_characters`, a value that is no text. A missing column is always an error.
    """
    for source in sources:
        for suffix, count in source.others:
            report.remark(source.folder, 0, f"{suffix} suffix, not read", count)
        reader = _Reader(source, options, report)
        for document in reader.documents():
            if not document.text or document.text.isspace():
                report.remark(source.name, reader.line, "empty document")
                continue
            report.documents += 1
            report.characters += len(document.text)
            yield document


class _Reader:
    """Reads one source; knows the line it is at."""

    def __init__(self, source: Source, options: CorpusOptions, report: CorpusReport) -> None:
        self.source, self.options, self.report = source, options, report
        self.line = 0

    def documents(self) -> Iterator[Document]:
        if self.source.path is None:
            yield from self._python_docs()
            return
        before = self.report.bytes_read
        try:
            if self.source.size == 0:
                self.report.remark(self.source.name, 1, "empty file")
            elif self.source.kind == ".parquet":
                yield from self._parquet()
            else:
                yield from self._text()
        except OSError as error:
            raise UserError(f"{self.source.name}: cannot be read: {error.strerror or error}") from error
        self.report.bytes_read = before + self.source.size

    def bad(self, reason: str, detail: str = "", line: int | None = None) -> None:
        """Count what is left out, or stop with what is wrong."""
        line = self.line if line is None else line
        if not self.options.skip_bad:
            what = f"{reason}{': ' if detail else ''}{detail}"
            place = f"{self.source.name}:{line}" if line else self.source.name
            raise UserError(f"{place}: {what}; --skip-bad leaves such text out and counts it")
        self.report.remark(self.source.name, line, reason)

    def _text(self) -> Iterator[Document]:
        readers: dict[str, Callable[[Lines], Iterator[Document]]] = {
            ".txt": self._blank_line_documents if self.options.documents == "blank-line" else self._one_document,
            ".md": self._markdown,
            ".jsonl": self._jsonl,
            ".ndjson": self._jsonl,
            ".csv": self._csv,
            ".tsv": self._csv,
        }
        assert self.source.path is not None
        before = self.report.bytes_read
        lines = None
        with self.source.path.open("rb") as raw:
            try:
                with decompressed(raw, self.source.path) as stream:
                    if self._is_binary(stream):
                        return
                    lines = Lines(stream, self.options.max_line_characters)
                    for document in readers[self.source.kind](lines):
                        self.report.bytes_read = before + raw.tell()
                        yield document
            except OSError as error:
                if error.errno is not None:
                    raise  # the system's; a decompressor's has no number
                self.bad("damaged compressed file", str(error), lines.number + 1 if lines else 0)

    def _is_binary(self, stream: io.BufferedReader) -> bool:
        sample = stream.peek(BINARY_SAMPLE)[:BINARY_SAMPLE]
        if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            self.bad("UTF-16 file", "save it as UTF-8", 1)
        elif b"\0" in sample:
            self.bad("binary file", "a NUL byte in it", 1)
        else:
            return False
        return True

    def _good(self, lines: Lines) -> Iterator[tuple[int, str]]:
        """The lines that can be read, with their numbers."""
        for line in lines:
            self.line = lines.number
            if problem := lines.take_problem():
                number, reason, detail = problem
                self.bad(reason, detail, number)
            else:
                yield self.line, line

    def _pieces(self, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        """Numbered lines joined into texts of at most `max_document_characters`, each with its first line's number.

        A text is cut after its last blank line, or where there is none after its last line.
        """
        held: list[str] = []
        characters = blank = 0  # blank: how many of the held lines go up to the last blank one
        first = after_blank = 1
        for number, line in lines:
            while held and characters + len(line) > self.options.max_document_characters:
                self.report.remark(self.source.name, first, "long document cut into several")
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
        yield first, "".join(held)

    def _one_document(self, lines: Lines) -> Iterator[Document]:
        for first, text in self._pieces(self._good(lines)):
            yield Document(text, f"{self.source.name}:{first}")

    def _blank_line_documents(self, lines: Lines) -> Iterator[Document]:
        for is_blank, group in itertools.groupby(self._good(lines), key=lambda numbered: not numbered[1].strip()):
            if not is_blank:
                for first, text in self._pieces(group):
                    yield Document(text, f"{self.source.name}:{first}", True)

    def _markdown(self, lines: Lines) -> Iterator[Document]:
        for first, text in self._pieces(self._good(lines)):
            yield Document(_plain_text(text), f"{self.source.name}:{first}")

    def _jsonl(self, lines: Lines) -> Iterator[Document]:
        for _, line in self._good(lines):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except json.JSONDecodeError as error:
                self.bad("not valid JSON", f"{error.msg} at character {error.pos + 1}")
            except (ValueError, RecursionError) as error:  # a number of thousands of digits, nesting without end
                self.bad("not readable JSON", str(error))
            else:
                if isinstance(values, dict):
                    yield from self._value(values)
                else:
                    self.bad("not a JSON object", type(values).__name__)

    def _csv(self, lines: Lines) -> Iterator[Document]:
        # Strict, or else a quote that is never closed would silently swallow the rows after it.
        reader = csv.reader(lines, delimiter="\t" if self.source.kind == ".tsv" else ",", strict=True)
        header: list[str] | None = None
        fields: list[str] | None = []
        while fields is not None:
            self.line = lines.number + 1
            try:
                fields = next_row(reader, self.options.max_line_characters)
            except csv.Error as error:
                lines.problem = lines.problem or (self.line, "not valid csv", str(error))
            if problem := lines.take_problem():
                number, reason, detail = problem
                if header is None or reason == "line too long":
                    # Rows after it can no longer be told apart: nobody knows whether a quote was open.
                    self.bad(f"{reason}, nothing after it read", detail, number)
                    return
                self.bad(reason, detail, number)
            elif not fields:
                continue
            elif header is None:
                header = fields
            elif len(fields) != len(header):
                self.bad("wrong number of fields", f"{len(fields)}, the header has {len(header)}")
            else:
                yield from self._value(dict(zip(header, fields, strict=True)))

    def _parquet(self) -> Iterator[Document]:
        before, column = self.report.bytes_read, self.options.text_column
        assert self.source.path is not None
        with self.source.path.open("rb") as raw:
            try:
                # Without pre-buffering a row group is read page by page; it may be larger than memory.
                file = pq.ParquetFile(raw, pre_buffer=False, buffer_size=1 << 20)
                if column not in file.schema_arrow.names:
                    self._no_column(file.schema_arrow.names)
                for batch in file.iter_batches(batch_size=64, columns=[column]):
                    for value in batch.column(0):
                        self.line += 1
                        yield from self._cell(value)
                    done = self.line / max(1, file.metadata.num_rows)
                    self.report.bytes_read = before + int(self.source.size * done)
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                self.bad("not a readable parquet file", str(error).splitlines()[0], 0)

    def _cell(self, value: pa.Scalar) -> Iterator[Document]:
        try:
            text = value.as_py()
        except UnicodeDecodeError as error:
            self.bad("not UTF-8", f"byte {error.start:,} of the text is 0x{error.object[error.start]:02x}")
        else:
            yield from self._value({self.options.text_column: text})

    def _value(self, values: Mapping[str, Any]) -> Iterator[Document]:
        column, limit = self.options.text_column, self.options.max_line_characters
        if column not in values:
            self._no_column(list(values))
        text, line = values[column], self.line
        if text is None:
            text = ""
        if not isinstance(text, str):
            self.bad(f"column {column!r} is not text", repr(text)[:40])
        elif not is_unicode(text):
            self.bad("half a surrogate pair", "the text is not valid Unicode")
        elif len(text) <= self.options.max_document_characters:
            yield Document(text, f"{self.source.name}:{line}")
        else:
            lines = text.splitlines(keepends=True)
            if max(map(len, lines)) > limit:
                self.bad("line too long", f"more than {limit:,} characters in column {column!r}")
                return
            for _, piece in self._pieces((line, one) for one in lines):
                yield Document(piece, f"{self.source.name}:{line}")

    def _no_column(self, present: Sequence[str]) -> NoReturn:
        raise UserError(
            f"{self.source.name}:{max(self.line, 1)}: no column {self.options.text_column!r}"
            f"{closest(self.options.text_column, present)}; columns present: {', '.join(present) or 'none'} "
            "(--text-column names one)"
        )

    def _python_docs(self) -> Iterator[Document]:
        for module in python_docs.modules(packages(self.source.name)):
            self.line += 1
            self.report.bytes_read += module.size
            if module.problem:
                self.report.remark(self.source.name, self.line, module.problem)
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
