"""Rows of a table of any size, one at a time and in constant memory; what cannot be read is set aside with the reason.

`tables.read_rows` is for tables that people make, where a fault is an error. This is for tables that nobody has seen
whole, where a fault is a row to set aside.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bothways.data.tables import CONLL_SUFFIXES, BadRow, Row, TableOptions, read_table
from bothways.errors import UserError, option
from bothways.remote_files import local_file
from bothways.text.encodings import is_utf8
from bothways.text.lines import Fault, is_unicode, utf8_bytes
from bothways.text.table_reader import CSV_SUFFIXES, JSON_SUFFIXES, TABLE_SUFFIXES, TableReader, TableReaderOptions

STREAM_SUFFIXES = (*TABLE_SUFFIXES, ".txt")
WHOLE_SUFFIXES = (".json", *CONLL_SUFFIXES)
# Where a quote is not closed, all that follows up to this length is one bad row; a million characters is no field that
# a model reads.
MAX_FIELD_CHARACTERS = 1 << 20
SCHEMA_ROWS = 1024  # the first rows of a .jsonl, which tell its columns and their types
COUNT_BYTES = 1 << 20  # read at a time to count lines
JSON_TEXT = {"json": "text"}  # metadata of a column of values that a table has no type for, as JSON


@dataclass(frozen=True)
class ArrowRow(Row):
    """A row of a Parquet file. batch, index: where it is, so that its columns can be copied as they are."""

    batch: pa.RecordBatch
    index: int


class RowStream:
    """The rows of a .parquet, .jsonl, .csv, .tsv or .txt (a row a line), the last four also as .gz or .zst; and those
    of a .json or of CoNLL columns, which are in memory all at once.

    path: of the file, or its URL, of which a copy is read. text_column: what the lines of a .txt are called. options:
    what the file is, where its name does not say it. columns: the names in the first rows, in order. remarks: what a
    user should know of how the file is read. reading: of the options, what says how the file is read, as JSON.
    Raises UserError for a file that is none of these, or has no row that can be read.
    """

    def __init__(self, path: str | Path, text_column: str = "text", options: TableOptions | None = None) -> None:
        options, path = options or TableOptions(), local_file(path)
        self.path, self.encoding = path, options.encoding
        said = {"format": options.format, "encoding": None if is_utf8(options.encoding) else options.encoding}
        self.reading = {name: value for name, value in said.items() if value is not None}
        self.remarks: list[str] = []
        if not path.is_file():
            raise UserError(f"{path}: {'is a folder, not a file' if path.is_dir() else 'no such file'}")
        self.suffix = options.suffix_of(path)
        if self.suffix not in (*STREAM_SUFFIXES, *WHOLE_SUFFIXES):
            raise UserError(
                f"{path}: expected a table that ends in one of {', '.join((*STREAM_SUFFIXES, *WHOLE_SUFFIXES))}, or "
                f"{option('format')} says what it is"
            )
        self._options = TableReaderOptions(
            max_field_characters=MAX_FIELD_CHARACTERS,
            line_column=text_column,
            suffix=self.suffix,
            encoding=options.encoding,
        )
        self._whole = self.suffix in WHOLE_SUFFIXES
        self._held = read_table(path, replace(options, say=self._remark)) if self._whole else []
        rows = self.rows()
        first = list(itertools.islice(rows, SCHEMA_ROWS))
        if not first:
            raise UserError(f"{path}: no rows")
        good = next((row for row in itertools.chain(first, rows) if isinstance(row, Row)), None)
        if good is None:
            raise UserError(f"{path}: no row of it can be read: {first[0].reason}")  # type: ignore[union-attr]
        self._first = [row.values for row in (*first, good) if isinstance(row, Row)]
        self.columns = list(dict.fromkeys(name for values in self._first for name in values))

    def _remark(self, line: str) -> None:
        self.remarks.append(line.removeprefix(f"{self.path}: "))

    def count(self) -> int:
        """How many rows there are; of a .csv with line breaks in its fields, how many at most."""
        if self._whole:
            return len(self._held)
        if self.suffix == ".parquet":
            with self._user_errors():
                return int(pq.read_metadata(self.path).num_rows)
        lines, last = 0, b""
        with self._user_errors(), self.path.open("rb") as raw, utf8_bytes(raw, self.path, self.encoding) as file:
            while block := file.read(COUNT_BYTES):
                lines, last = lines + block.count(b"\n"), block
        return lines + (not last.endswith(b"\n")) - (self.suffix in CSV_SUFFIXES)

    def schema(self) -> pa.Schema:
        """The columns' types; of .jsonl those of the first rows, where lists, objects and columns of several types are
        text, as JSON."""
        if self.suffix == ".parquet":
            with self._user_errors():
                return pq.read_schema(self.path).remove_metadata()
        if self.suffix not in JSON_SUFFIXES and not self._whole:
            return pa.schema([(name, pa.string()) for name in self.columns])
        return pa.schema([_field(name, {type(row.get(name)) for row in self._first}) for name in self.columns])

    def rows(self, skip: int = 0) -> Iterator[Row | BadRow]:
        """Every row after the first `skip`. Raises UserError where nothing more of the file can be read."""
        if self._whole:
            yield from self._held[skip:]
            return
        reader = TableReader(self.path, self._options)
        with self._user_errors():
            for row in reader.rows(skip):
                place, self.remarks = reader.place(row.line), reader.remarks
                if isinstance(row, Fault):
                    if row.final:
                        raise UserError(f"{place}: {row.message}")
                    yield BadRow(place, row.message)
                elif row.batch is not None:
                    yield ArrowRow(row.values, place, row.batch, row.batch_row)
                elif self.suffix in JSON_SUFFIXES and not _all_unicode(row.values):
                    yield BadRow(place, "holds half a surrogate pair, which is no text")
                else:
                    yield Row(row.values, place)

    @contextmanager
    def _user_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, pa.ArrowException, OverflowError) as error:
            raise UserError(
                f"{self.path}: cannot be read: {(str(error) or 'it ends too early').splitlines()[0]}"
            ) from error


def _all_unicode(values: Mapping[str, Any]) -> bool:
    texts = "".join([*values, *(value for value in values.values() if isinstance(value, str))])
    nested = [value for value in values.values() if isinstance(value, list | dict)]
    return is_unicode(texts) and (not nested or is_unicode(json.dumps(nested, ensure_ascii=False)))


def _field(name: str, kinds: set[type]) -> pa.Field:
    kinds -= {type(None)}
    for known, kind in (({bool}, pa.bool_()), ({int}, pa.int64()), ({int, float}, pa.float64()), ({str}, pa.string())):
        if kinds and kinds <= known:
            return pa.field(name, kind)
    return pa.field(name, pa.string(), metadata=JSON_TEXT if kinds else None)
