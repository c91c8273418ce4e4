"""Rows of csv, tsv, jsonl, ndjson and Parquet files, read one after another in constant memory.

This is the one place that knows the formats. What cannot be read comes as a `Fault` in its place; the caller decides
whether that stops the reading (`tables.read_rows`), is counted (`corpus`) or is set aside (`stream.RowStream`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from bothways.errors import as_shown
from bothways.text.csv_records import CsvRecords, repeated_column
from bothways.text.encodings import UTF8
from bothways.text.lines import (
    Fault,
    Lines,
    binary_fault,
    damage_of,
    encoding_remarks,
    uncompressed_suffix,
    utf8_bytes,
)
from bothways.text.parquet_values import python_values

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

    strict: False lets NUL bytes after the first kilobytes pass, and columns of the same name that are not in `columns`.
    columns: those that are asked for. Of Parquet only they are read, or all where one of them is not there, for an
    error to list them.
    batch_rows: of Parquet, how many become Python objects at a time. line_column: what the lines of a .txt are called.
    suffix: how the file is read, where its name does not say it. encoding: of text that is not UTF-8.
    """

    max_line_characters: int = MAX_LINE_CHARACTERS
    max_field_characters: int = MAX_LINE_CHARACTERS
    strict: bool = True
    columns: tuple[str, ...] = ()
    batch_rows: int = 1024
    line_column: str = "text"
    suffix: str = ""
    encoding: str = UTF8


class TableReader:
    """Reads one file with a suffix of `TABLE_SUFFIXES`, or a .txt of which every line is a row; all but .parquet also
    as .gz or .zst.

    remarks: what a user should know of how the file is read, separators say; from the first row on.
    """

    def __init__(self, path: Path, options: TableReaderOptions | None = None) -> None:
        self.path, self.options = path, options or TableReaderOptions()
        self.suffix = self.options.suffix or uncompressed_suffix(path)
        self._name = as_shown(path)
        self.remarks: list[str] = []
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
            return self._name
        return f"{self._name}: row {line}" if self.suffix == ".parquet" else f"{self._name}:{line}"

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
                with utf8_bytes(self._file, self.path, self.options.encoding) as stream:
                    self.remarks = encoding_remarks(stream)
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
                yield json_row(line, lines.number)

    def _csv(self, lines: Lines) -> Iterator[TableRow | Fault]:
        limit = self.options.max_field_characters
        unique = None if self.options.strict else frozenset(self.options.columns)
        records = CsvRecords(lines, self.suffix == ".tsv", limit, unique)
        before = self.remarks
        for record in records:
            self.remarks = before + records.remarks
            yield record if isinstance(record, Fault) else TableRow(record.values, record.line)

    def _parquet_file(self, skip: int) -> Iterator[TableRow | Fault]:
        with self.path.open("rb") as self._file:
            try:
                # Without pre-buffering a row group is read page by page; it may be larger than memory.
                file = pq.ParquetFile(self._file, pre_buffer=False, buffer_size=PARQUET_BUFFER_BYTES)
                names = file.schema_arrow.names
                unique = None if self.options.strict else frozenset(self.options.columns)
                if fault := repeated_column(0, names, "is there twice", unique):
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
                for index, values in enumerate(python_values(batch.slice(start)), start):
                    line = number + index + 1
                    if isinstance(values, UnicodeDecodeError):
                        yield _undecodable_cell(line, values)
                    else:
                        yield TableRow(values, line, batch, index)
                number += len(batch)
                self._parquet_bytes = int(self.path.stat().st_size * number / file.metadata.num_rows)


def json_row(line: str, number: int) -> TableRow | Fault:
    """The row of a line of JSON, or what is wrong with it."""
    try:
        values: Any = json.loads(line, object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        hint = ", an array? name the file .json" if number == 1 and line.lstrip().startswith("[") else ""
        return Fault(number, "not valid JSON", f"{error.msg} at character {error.pos + 1}{hint}")
    except (ValueError, RecursionError) as error:  # a key twice, a number of thousands of digits, nesting without end
        return Fault(number, "not readable JSON", str(error))
    if not isinstance(values, dict):
        kind = type(values).__name__
        rows = kind == "list" and any(isinstance(value, dict) for value in values)
        hint = "; name a file of an array of objects .json" if rows else ""
        return Fault(number, "not a JSON object", kind, f"expected a JSON object, found {kind}{hint}")
    return TableRow(values, number)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError for a key that stands twice, of which `json` would take the last."""
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {repeated!r} stands twice in an object")
    return values


def _undecodable_cell(line: int, error: UnicodeDecodeError) -> Fault:
    byte = f"0x{error.object[error.start]:02x}"
    return Fault(
        line,
        "not UTF-8",
        f"byte {error.start:,} of the text is {byte}",
        f"a text in it is not UTF-8: its byte {error.start + 1} is {byte}",
    )
