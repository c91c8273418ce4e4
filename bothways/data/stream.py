"""Rows of a table of any size, one at a time and in constant memory; what cannot be read is told and passed over.

`tables.read_rows` is for tables that people make, where a fault is an error. This is for those that nobody has seen
whole, where it is a row to set aside.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bothways.data.tables import Row
from bothways.errors import UserError
from bothways.text.lines import COMPRESSIONS, decompressed, is_unicode, next_row

FIELD_CHARACTERS = 1 << 20  # where a quote is not closed, no more than this is one bad row
SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt")
READ_ROWS = 1024  # at a time; of .jsonl the first ones, which tell the columns
JSON_TEXT = {"json": "text"}  # metadata of a column of values that a table has no type for, as JSON


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used. source: `file:line`."""

    source: str
    reason: str


@dataclass(frozen=True)
class ArrowRow(Row):
    """A row of a parquet file, with where it stands in its batch, so that it can be carried on as it is."""

    batch: pa.RecordBatch
    index: int


class RowStream:
    """The rows of a .parquet, .jsonl, .csv, .tsv or .txt (a row a line), the last four also as .gz or .zst.

    text_column: what the lines of a .txt are called. Raises UserError for a file that is none of these, or has no rows.
    """

    def __init__(self, path: Path, text_column: str = "text") -> None:
        self.path, self._text_column = path, text_column
        if not path.is_file():
            raise UserError(f"{path}: {'is a folder, not a file' if path.is_dir() else 'no such file'}")
        self.suffix = (path.with_suffix("") if path.suffix in COMPRESSIONS else path).suffix.lower()
        if self.suffix not in SUFFIXES:
            raise UserError(f"{path}: expected a table that ends in one of {', '.join(SUFFIXES)}")
        rows = self.rows()
        first = list(itertools.islice(rows, READ_ROWS))
        if not first:
            raise UserError(f"{path}: no rows")
        good = next((row for row in itertools.chain(first, rows) if isinstance(row, Row)), None)
        if good is None:
            raise UserError(f"{path}: no row of it can be read: {first[0].reason}")  # type: ignore[union-attr]
        self._first = [row.values for row in (*first, good) if isinstance(row, Row)]
        self.columns = list(dict.fromkeys(name for values in self._first for name in values))

    def count(self) -> int:
        """How many rows there are; of a .csv with line breaks in its fields, how many at most."""
        if self.suffix == ".parquet":
            return int(self._parquet().metadata.num_rows)
        lines, last = 0, b""
        with self._complaining(), self.path.open("rb") as raw, decompressed(raw, self.path) as file:
            while block := file.read(1 << 20):
                lines, last = lines + block.count(b"\n"), block
        return lines + (not last.endswith(b"\n")) - (self.suffix in (".csv", ".tsv"))

    def schema(self) -> pa.Schema:
        """The columns' types; of .jsonl those of the first rows, where lists, objects and columns of several types are
        text, as JSON."""
        if self.suffix == ".parquet":
            return self._parquet().schema_arrow.remove_metadata()
        if self.suffix not in (".jsonl", ".ndjson"):
            return pa.schema([(name, pa.string()) for name in self.columns])
        return pa.schema([_field(name, {type(one.get(name)) for one in self._first}) for name in self.columns])

    def rows(self, skip: int = 0) -> Iterator[Row | BadRow]:
        """Every row after the first `skip`."""
        with self._complaining():
            if self.suffix == ".parquet":
                yield from self._of_parquet(skip)
            else:
                yield from itertools.islice(self._of_text(), skip, None)

    @contextmanager
    def _complaining(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, pa.ArrowException, OverflowError) as error:
            raise UserError(
                f"{self.path}: cannot be read: {(str(error) or 'it ends too early').splitlines()[0]}"
            ) from error

    def _parquet(self) -> pq.ParquetFile:
        try:
            file = pq.ParquetFile(self.path)
        except pa.ArrowException as error:
            raise UserError(f"{self.path}: not a readable parquet file: {str(error).splitlines()[0]}") from error
        names = file.schema_arrow.names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"{self.path}: the column {twice[0]!r} is there twice")
        return file

    def _of_parquet(self, skip: int) -> Iterator[Row | BadRow]:
        with self._parquet() as file:
            groups, first = [], 0
            for number in range(file.num_row_groups):
                size = file.metadata.row_group(number).num_rows
                if first + size > skip:
                    groups.append((number, first))
                first += size
            for group, first in groups:
                number = first
                for batch in file.iter_batches(READ_ROWS, row_groups=[group]):
                    start = max(0, skip - number)
                    for index, values in enumerate(batch.slice(start).to_pylist(), start):
                        yield ArrowRow(values, f"{self.path}: row {number + index + 1}", batch, index)
                    number += len(batch)

    def _of_text(self) -> Iterator[Row | BadRow]:
        with ExitStack() as stack:
            raw = stack.enter_context(self.path.open("rb"))
            file = stack.enter_context(decompressed(raw, self.path))
            # a byte that is no UTF-8 becomes half a surrogate pair, by which its row is known
            lines = (
                line.decode("utf-8", "surrogateescape").removeprefix("" if number else "\ufeff")
                for number, line in enumerate(file)
            )
            yield from self._of_csv(lines) if self.suffix in (".csv", ".tsv") else self._of_lines(lines)

    def _of_lines(self, lines: Iterator[str]) -> Iterator[Row | BadRow]:
        for number, line in enumerate(lines, 1):
            source = f"{self.path}:{number}"
            if problem := _unfit(line):
                yield BadRow(source, problem)
            elif self.suffix == ".txt":
                yield Row({self._text_column: line.rstrip("\r\n")}, source)
            elif line.strip():
                yield _of_json(line, source)

    def _of_csv(self, lines: Iterator[str]) -> Iterator[Row | BadRow]:
        reader = csv.reader(lines, delimiter="\t" if self.suffix == ".tsv" else ",", strict=True)
        header: list[str] | None = None
        while True:
            began, values, problem = reader.line_num + 1, None, ""
            try:
                values = next_row(reader, FIELD_CHARACTERS)
            except csv.Error as error:
                problem = f"not valid csv: {error} (up to line {reader.line_num})"
            source = f"{self.path}:{began}"
            if values is None and not problem:
                return
            if header is None:
                header = values or []
                if problem or len(set(header)) < len(header) or _unfit("".join(header)):
                    raise UserError(f"{source}: {problem or 'a column stands twice in the header, or is no UTF-8'}")
                continue
            if values == []:
                continue  # a blank line
            if values is not None and len(values) != len(header):
                problem = f"{len(values)} fields, but the header has {len(header)}: {', '.join(header)}"
            problem = problem or _unfit("".join(values or []))
            yield BadRow(source, problem) if problem else Row(dict(zip(header, values or [], strict=True)), source)


def _unfit(text: str) -> str:
    if "\0" in text:
        return "holds a NUL byte; this is no text"
    return "" if is_unicode(text) else "is not UTF-8"


def _of_json(line: str, source: str) -> Row | BadRow:
    try:
        values: Any = json.loads(line)
    except json.JSONDecodeError as error:
        return BadRow(source, f"not valid JSON: {error.msg} at character {error.pos + 1}")
    except (ValueError, RecursionError) as error:
        return BadRow(source, f"not readable JSON: {error}")
    if not isinstance(values, dict):
        return BadRow(source, "expected a JSON object")
    if "\\u" in line and not is_unicode(json.dumps(values, ensure_ascii=False)):
        return BadRow(source, "holds half a surrogate pair, which is no text")
    return Row(values, source)


def _field(name: str, kinds: set[type]) -> pa.Field:
    kinds -= {type(None)}
    for known, kind in (({bool}, pa.bool_()), ({int}, pa.int64()), ({int, float}, pa.float64()), ({str}, pa.string())):
        if kinds and kinds <= known:
            return pa.field(name, kind)
    return pa.field(name, pa.string(), metadata=JSON_TEXT if kinds else None)
