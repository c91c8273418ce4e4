"""Rows of csv, tsv, jsonl, ndjson and Parquet files, read one after another in constant memory.

This is the one place that knows the formats. What cannot be read comes as a `Fault` in its place; the caller decides
whether that stops the reading (`tables.read_rows`), is counted (`corpus`) or is set aside (`stream.RowStream`).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from bothways.text.lines import Fault, Lines, binary_fault, damage_of, decompressed, uncompressed_suffix

JSON_SUFFIXES = (".jsonl", ".ndjson")
CSV_SUFFIXES = (".csv", ".tsv")
TABLE_SUFFIXES = (".parquet", *JSON_SUFFIXES, *CSV_SUFFIXES)
# 134 million: the longest novels have 10 million. A file without line ends must not fill the memory.
MAX_LINE_CHARACTERS = 1 << 27
PARQUET_BUFFER_BYTES = 1 << 20


class TableRow(NamedTuple):
    """A row of a file; a tuple because it is made in half the time of a frozen dataclass.

    values: by column. line: where the row begins, from 1; of Parquet the number of the row. batch,
    batch_row: of Parquet, the Arrow batch that holds the row, and which of its rows it is.
    """

    values: dict[str, Any]
    line: int
    batch: pa.RecordBatch | None = None
    batch_row: int = 0


@dataclass(frozen=True)
class TableReaderOptions:
    """max_line_characters: a longer line cannot be read. max_field_characters: nor can a longer field of a csv; where a
    quote is not closed, what it swallows is at most that long.

    strict: False lets NUL bytes after the first kilobytes and columns of the same name pass; the last of those counts.
    columns: of Parquet, the ones to read; all are read where one of them is not there, for an error to list them.
    batch_rows: of Parquet, how many become Python objects at a time. line_column: what the lines of a .txt are called.
    """

    max_line_characters: int = MAX_LINE_CHARACTERS
    max_field_characters: int = MAX_LINE_CHARACTERS
    strict: bool = True
    columns: tuple[str, ...] = ()
    batch_rows: int = 1024
    line_column: str = "text"


class TableReader:
    """Reads one file with a suffix of `TABLE_SUFFIXES`, or a .txt of which every line is a row; all but .parquet also
    as .gz or .zst."""

    def __init__(self, path: Path, options: TableReaderOptions | None = None) -> None:
        self.path, self.options = path, options or TableReaderOptions()
        self.suffix = uncompressed_suffix(path)
        self._file: IO[bytes] | None = None
        self._parquet_bytes = 0

    @property
    def bytes_read(self) -> int:
        """How far into the file the reading is, while `rows` is at a row; of Parquet the rows' share of its bytes."""
        if self.suffix == ".parquet":
            return self._parquet_bytes
        return 0 if self._file is None or self._file.closed else self._file.tell()

    def place(self, line: int) -> str:
        """`file:line`, or `file: row 3` of Parquet; the file alone for line 0."""
        if not line:
            return str(self.path)
        return f"{self.path}: row {line}" if self.suffix == ".parquet" else f"{self.path}:{line}"

    def rows(self, skip: int = 0) -> Iterator[TableRow | Fault]:
        """Every row, or what is wrong with it, after the first `skip`; blank lines are no rows. A final fault is never
        skipped. Raises OSError where the system cannot read the file."""
        if self.suffix == ".parquet":
            yield from self._parquet_file(skip)
            return
        for number, row in enumerate(self._text_file()):
            if number >= skip or (isinstance(row, Fault) and row.final):
                yield row

    def _text_file(self) -> Iterator[TableRow | Fault]:
        lines = None
        with self.path.open("rb") as self._file:
            try:
                with decompressed(self._file, self.path) as stream:
                    if not self.options.strict and (fault := binary_fault(stream)):
                        yield fault
                        return
                    lines = Lines(stream, self.options.max_line_characters, allow_nul=not self.options.strict)
                    yield from self._csv(lines) if self.suffix in CSV_SUFFIXES else self._lines(lines)
            except OSError as error:
                yield damage_of(error, lines)

    def _lines(self, lines: Lines) -> Iterator[TableRow | Fault]:
        for line in lines:
            if fault := lines.take_fault():
                yield fault
            elif self.suffix not in JSON_SUFFIXES:
                yield TableRow({self.options.line_column: line.rstrip("\r\n")}, lines.number)
            elif line.strip():
                yield _json_row(line, lines.number)

    def _csv(self, lines: Lines) -> Iterator[TableRow | Fault]:
        # Strict, or else a quote that is never closed would silently swallow the rows after it.
        reader = csv.reader(lines, delimiter="\t" if self.suffix == ".tsv" else ",", strict=True)
        header: list[str] | None = None
        fields: list[str] | None = []
        while fields is not None:
            line, fields = lines.number + 1, []
            try:
                fields = _next_fields(reader, self.options.max_field_characters)
            except csv.Error as error:
                lines.note("not valid csv", str(error), _csv_sentence(error, lines.number), line)
            if fault := lines.take_fault():
                if header is None or fault.reason == "line too long":
                    # Rows after it can no longer be told apart: nobody knows whether a quote was open.
                    yield replace(fault, reason=f"{fault.reason}, nothing after it read", final=True)
                    return
                yield fault
            elif not fields:
                continue
            elif header is None:
                header = fields
                if self.options.strict and (fault := _repeated_column(line, header, "stands twice in the header")):
                    yield fault
                    return
            elif len(fields) != len(header):
                yield _wrong_fields(line, fields, header)
            else:
                yield TableRow(dict(zip(header, fields, strict=True)), line)

    def _parquet_file(self, skip: int) -> Iterator[TableRow | Fault]:
        with self.path.open("rb") as self._file:
            try:
                # Without pre-buffering a row group is read page by page; it may be larger than memory.
                file = pq.ParquetFile(self._file, pre_buffer=False, buffer_size=PARQUET_BUFFER_BYTES)
                names = file.schema_arrow.names
                if self.options.strict and (fault := _repeated_column(0, names, "is there twice")):
                    yield fault
                    return
                yield from self._row_groups(file, skip)
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: of a column's name
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                yield Fault(0, "not a readable parquet file", str(error).splitlines()[0], final=True)

    def _row_groups(self, file: pq.ParquetFile, skip: int) -> Iterator[TableRow | Fault]:
        wanted = self.options.columns
        columns = list(wanted) if wanted and {*wanted} <= {*file.schema_arrow.names} else None
        end = 0
        for group in range(file.num_row_groups):
            number, end = end, end + file.metadata.row_group(group).num_rows
            if end <= skip:
                continue
            for batch in file.iter_batches(self.options.batch_rows, row_groups=[group], columns=columns):
                start = max(0, skip - number)
                for index, values in enumerate(_python_values(batch.slice(start)), start):
                    line = number + index + 1
                    if isinstance(values, UnicodeDecodeError):
                        yield _undecodable_cell(line, values)
                    else:
                        yield TableRow(values, line, batch, index)
                number += len(batch)
                self._parquet_bytes = int(self.path.stat().st_size * number / file.metadata.num_rows)


def _json_row(line: str, number: int) -> TableRow | Fault:
    try:
        values: Any = json.loads(line)
    except json.JSONDecodeError as error:
        return Fault(number, "not valid JSON", f"{error.msg} at character {error.pos + 1}")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, nesting without end
        return Fault(number, "not readable JSON", str(error))
    if not isinstance(values, dict):
        kind = type(values).__name__
        return Fault(number, "not a JSON object", kind, f"expected a JSON object, found {kind}")
    return TableRow(values, number)


def _next_fields(reader: Iterator[list[str]], limit: int) -> list[str] | None:
    """A row with fields of at most `limit` characters, or None after the last row.

    The csv module has one limit for the whole process, so it is put back. Raises csv.Error.
    """
    before = csv.field_size_limit(limit)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def _csv_sentence(error: csv.Error, last_line: int) -> str:
    about_quotes = "quote" in str(error) or "delimiter" in str(error) or "expected after" in str(error)
    hint = "; a quote that opens a field must close it" if about_quotes else ""
    return f"not valid csv: {error} (up to line {last_line}){hint}"


def _wrong_fields(line: int, fields: list[str], header: list[str]) -> Fault:
    found, expected = len(fields), len(header)
    return Fault(
        line,
        "wrong number of fields",
        f"{found}, the header has {expected}",
        f"{found} fields, but the header has {expected}: {', '.join(header)}",
    )


def _repeated_column(line: int, names: list[str], how: str) -> Fault | None:
    """The fault of a table with two columns of one name, or None."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if not repeated:
        return None
    return Fault(line, "repeated column", repr(repeated[0]), f"the column {repeated[0]!r} {how}", final=True)


def _python_values(batch: pa.RecordBatch) -> list[dict[str, Any] | UnicodeDecodeError]:
    """The batch's rows as dictionaries; the error in place of a row with text that is not UTF-8."""
    try:
        return [*batch.to_pylist()]
    except UnicodeDecodeError as error:
        if len(batch) == 1:
            return [error]
    return [values for index in range(len(batch)) for values in _python_values(batch.slice(index, 1))]


def _undecodable_cell(line: int, error: UnicodeDecodeError) -> Fault:
    byte = f"0x{error.object[error.start]:02x}"
    return Fault(
        line,
        "not UTF-8",
        f"byte {error.start:,} of the text is {byte}",
        f"a text in it is not UTF-8: its byte {error.start + 1} is {byte}",
    )
