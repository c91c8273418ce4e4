"""Documents from files: txt, md, jsonl, csv, tsv, parquet, .gz and .zst of them, folders, globs, `python-docs:`.

Streaming: a line at a time, so memory does not grow with the corpus. What cannot be read stops the reading with the
file, the line and the fix; with `skip_bad` it is left out and counted instead. Nothing is left out uncounted.
"""

from __future__ import annotations

import csv
import glob
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import zstandard

from bothways.errors import UserError, closest
from bothways.text import python_docs

SUFFIXES = (".txt", ".md", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
COMPRESSIONS = (".gz", ".zst")
PYTHON_DOCS = "python-docs:"


@dataclass(frozen=True)
class Document:
    """source: `file:line` where it begins. one_sentence_a_line: its lines are sentences already."""

    text: str
    source: str
    one_sentence_a_line: bool = False


@dataclass(frozen=True)
class Source:
    """One file, or the Python documentation of some packages (path None). size: bytes on disk."""

    name: str
    path: Path | None
    size: int

    @property
    def kind(self) -> str:
        """The suffix that decides how it is read, without the compression's."""
        assert self.path is not None
        return next(suffix for suffix in reversed(self.path.suffixes) if suffix not in COMPRESSIONS)


@dataclass(frozen=True)
class CorpusOptions:
    """text_column: of jsonl, csv and parquet. documents: a .txt is one document, or several parted by blank lines with
    one sentence a line, BERT's own input format. A longer document is cut into several at the end of a line."""

    text_column: str = "text"
    documents: Literal["file", "blank-line"] = "file"
    skip_bad: bool = False
    max_line_characters: int = 4_000_000
    max_document_characters: int = 1_000_000


@dataclass
class CorpusReport:
    """What was read, and by file what was left out and why: file → reason → (how often, first line)."""

    documents: int = 0
    characters: int = 0
    bytes_read: int = 0
    remarks: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)

    def remark(self, file: str, line: int, reason: str) -> None:
        reasons = self.remarks.setdefault(file, {})
        count, first = reasons.get(reason, (0, line))
        reasons[reason] = (count + 1, first)

    def lines(self, limit: int = 20) -> list[str]:
        """For the terminal: a line a file and reason, the first `limit`, and how many more there are."""
        every = [
            f"{file}: {reason}: {count:,} (first at line {line:,})"
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


def resolve_sources(sources: Sequence[str]) -> list[Source]:
    """Files, folders (all their files of a known suffix, in order of name), globs, and `python-docs:[NAME,NAME…]`.

    Raises UserError for what does not exist, a suffix that is not known, a folder without a file to read.
    """
    found: list[Source] = []
    for name in sources:
        path = Path(name)
        if name.startswith(PYTHON_DOCS):
            found.append(Source(name, None, python_docs.size(_packages(name))))
        elif path.is_dir():
            found += _in_folder(path)
        elif path.exists():
            if not _is_known(path):
                raise UserError(f"{name}: {path.suffix or 'no'} suffix; text is read from {_known()}")
            found.append(_file(path))
        elif glob.has_magic(name):
            matches = sorted(Path(match) for match in glob.glob(name, recursive=True))
            files = [_file(match) for match in matches if match.is_file() and _is_known(match)]
            if not files:
                raise UserError(f"{name}: no file of a known suffix matches; text is read from {_known()}")
            found += files
        else:
            neighbours = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
            raise UserError(f"{name}: no such file or folder{closest(path.name, neighbours)}")
    if not found:
        raise UserError("no source: give files, folders, globs or python-docs:")
    return found


def _packages(name: str) -> list[str]:
    return [package for package in name.removeprefix(PYTHON_DOCS).split(",") if package]


def _in_folder(folder: Path) -> list[Source]:
    files = [_file(path) for path in sorted(folder.rglob("*")) if path.is_file() and _is_known(path)]
    if not files:
        raise UserError(f"{folder}: no file of a known suffix in this folder; text is read from {_known()}")
    return files


def _file(path: Path) -> Source:
    return Source(str(path), path, path.stat().st_size)


def _is_known(path: Path) -> bool:
    suffixes = [suffix for suffix in path.suffixes if suffix not in COMPRESSIONS]
    return bool(suffixes) and suffixes[-1] in SUFFIXES and not (suffixes[-1] == ".parquet" != path.suffix)


def _known() -> str:
    return f"{' '.join(SUFFIXES)} (also with {' or '.join(COMPRESSIONS)})"


def read_documents(sources: Sequence[Source], options: CorpusOptions, report: CorpusReport) -> Iterator[Document]:
    """Every document of every source, in order; what is left out is counted in the report.

    Raises UserError, unless `skip_bad`: undecodable bytes, a binary or damaged file, a malformed line, a line longer
    than `max_line_characters`, a value that is no text. A missing column is always an error.
    """
    for source in sources:
        reader = _Reader(source, options, report)
        for document in reader.documents():
            if not document.text.strip():
                report.remark(source.name, reader.line, "empty document")
                continue
            report.documents += 1
            report.characters += len(document.text)
            yield document


class _UnreadableError(Exception):
    """The rest of this file cannot be read."""


class _Reader:
    """Reads one source; knows the line it is at."""

    def __init__(self, source: Source, options: CorpusOptions, report: CorpusReport) -> None:
        self.source, self.options, self.report = source, options, report
        self.line = 0

    def documents(self) -> Iterator[Document]:
        if self.source.path is None:
            yield from self._python_docs()
            return
        readers: dict[str, Callable[[], Iterator[Document]]] = {
            ".txt": self._blank_line_documents if self.options.documents == "blank-line" else self._one_document,
            ".md": self._markdown,
            ".jsonl": self._jsonl,
            ".ndjson": self._jsonl,
            ".csv": self._csv,
            ".tsv": self._csv,
            ".parquet": self._parquet,
        }
        before = self.report.bytes_read
        try:
            if self.source.size == 0:
                self.report.remark(self.source.name, 1, "empty file")
            else:
                yield from readers[self.source.kind]()
        except _UnreadableError:
            pass  # counted where it was raised
        except OSError as error:
            raise UserError(f"{self.source.name}: cannot be read: {error.strerror or error}") from error
        self.report.bytes_read = before + self.source.size

    def bad(self, reason: str, detail: str = "") -> None:
        """Count what is left out, or stop with what is wrong."""
        if not self.options.skip_bad:
            what = f"{reason}{': ' if detail else ''}{detail}"
            raise UserError(f"{self.source.name}:{self.line}: {what}; --skip-bad leaves such text out and counts it")
        self.report.remark(self.source.name, self.line, reason)

    def lines(self) -> Iterator[str]:
        """Decoded lines with their ends, each at most `max_line_characters` (bytes are counted) long."""
        assert self.source.path is not None
        before, limit = self.report.bytes_read, self.options.max_line_characters
        with self.source.path.open("rb") as raw, _decompressed(raw, self.source.path) as stream:
            try:
                while line := stream.readline(limit + 2):
                    self.line += 1
                    self.report.bytes_read = before + raw.tell()
                    if self.line == 1:
                        line = line.removeprefix(b"\xef\xbb\xbf")
                    if b"\0" in line[:8192]:
                        self.bad("binary file", "a NUL byte in it")
                        raise _UnreadableError
                    if len(line) > limit and not line.endswith(b"\n"):
                        length = len(line) + _skip_line(stream)
                        self.bad("line too long", f"{length:,} bytes, at most {limit:,} are read")
                        continue
                    try:
                        yield line.decode("utf-8")
                    except UnicodeDecodeError as error:
                        self.bad("not UTF-8", f"byte {error.start + 1} of the line is 0x{line[error.start]:02x}")
            except (gzip.BadGzipFile, EOFError, zstandard.ZstdError) as error:
                self.line += 1
                self.bad("damaged compressed file", str(error))

    def _pieces(self, lines: Iterator[str]) -> Iterator[str]:
        """Lines joined into texts of at most `max_document_characters`."""
        held: list[str] = []
        characters = 0
        for line in lines:
            if characters and characters + len(line) > self.options.max_document_characters:
                self.report.remark(self.source.name, self.line, "long document cut into several")
                yield "".join(held)
                held, characters = [], 0
            held.append(line)
            characters += len(line)
        yield "".join(held)

    def _one_document(self) -> Iterator[Document]:
        for text in self._pieces(self.lines()):
            yield Document(text, f"{self.source.name}:1")

    def _blank_line_documents(self) -> Iterator[Document]:
        held: list[str] = []
        characters = 0
        for line in self.lines():
            characters += len(line)
            if line.strip() and characters <= self.options.max_document_characters:
                held.append(line)
                continue
            if held:
                yield Document("".join(held), f"{self.source.name}:{self.line - len(held)}", True)
            held, characters = ([line], len(line)) if line.strip() else ([], 0)
        if held:
            yield Document("".join(held), f"{self.source.name}:{self.line - len(held) + 1}", True)

    def _markdown(self) -> Iterator[Document]:
        for text in self._pieces(self.lines()):
            yield Document(_plain_text(text), f"{self.source.name}:1")

    def _jsonl(self) -> Iterator[Document]:
        for line in self.lines():
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except json.JSONDecodeError as error:
                self.bad("not valid JSON", f"{error.msg} at character {error.pos + 1}")
                continue
            if not isinstance(values, dict):
                self.bad("not a JSON object", type(values).__name__)
                continue
            yield from self._value(values)

    def _csv(self) -> Iterator[Document]:
        csv.field_size_limit(self.options.max_line_characters)
        reader = csv.reader(self.lines(), delimiter="\t" if self.source.kind == ".tsv" else ",")
        header = next(reader, [])
        while True:
            try:
                fields = next(reader, None)
            except csv.Error as error:
                self.bad("not valid csv", str(error))
                continue
            if fields is None:
                return
            if fields and len(fields) != len(header):
                self.bad("wrong number of fields", f"{len(fields)}, the header has {len(header)}")
            elif fields:
                yield from self._value(dict(zip(header, fields, strict=True)))

    def _parquet(self) -> Iterator[Document]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        before, column = self.report.bytes_read, self.options.text_column
        try:
            file = pq.ParquetFile(self.source.path)
            if column not in file.schema_arrow.names:
                self._no_column(file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=256, columns=[column]):
                for value in batch.column(0).to_pylist():
                    self.line += 1
                    yield from self._value({column: value})
                done = self.line / max(1, file.metadata.num_rows)
                self.report.bytes_read = before + int(self.source.size * done)
        except pa.ArrowException as error:
            self.bad("not a readable parquet file", str(error).splitlines()[0])

    def _value(self, values: Mapping[str, Any]) -> Iterator[Document]:
        column = self.options.text_column
        if column not in values:
            self._no_column(list(values))
        text = values[column]
        if isinstance(text, str):
            for piece in self._pieces(iter(text.splitlines(keepends=True) or [""])):
                yield Document(piece, f"{self.source.name}:{self.line}")
        elif text is None:
            yield Document("", f"{self.source.name}:{self.line}")
        else:
            self.bad(f"column {column!r} is not text", repr(text)[:40])

    def _no_column(self, present: Sequence[str]) -> None:
        raise UserError(
            f"{self.source.name}:{max(self.line, 1)}: no column {self.options.text_column!r}"
            f"{closest(self.options.text_column, present)}; columns present: {', '.join(present) or 'none'} "
            "(--text-column names one)"
        )

    def _python_docs(self) -> Iterator[Document]:
        for module in python_docs.modules(_packages(self.source.name)):
            self.line += 1
            self.report.bytes_read += module.size
            if module.problem:
                self.report.remark(self.source.name, self.line, module.problem)
            elif module.text:
                yield Document(module.text, str(module.path))


def _decompressed(raw: IO[bytes], path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=raw))
    if path.suffix == ".zst":
        reader = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True, closefd=False)
        return io.BufferedReader(reader, 1 << 17)
    return raw


def _skip_line(stream: IO[bytes]) -> int:
    """Read past the rest of a line without holding it; returns its bytes."""
    skipped = 0
    while part := stream.readline(1 << 16):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def _plain_text(markdown: str) -> str:
    """The prose of a Markdown text: paragraphs, headings and list items, without code blocks and markup."""
    from markdown_it import MarkdownIt

    paragraphs = []
    for token in MarkdownIt("commonmark").parse(markdown):
        if token.type == "inline":
            parts = [" " if child.type.endswith("break") else child.content for child in token.children or []]
            paragraphs.append("".join(parts))
    return "\n\n".join(paragraphs)
