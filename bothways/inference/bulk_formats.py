"""The files that a bulk job writes: a table's own columns beside the results, as JSON lines, CSV or Parquet."""

from __future__ import annotations

import csv
import itertools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, cast

import pyarrow as pa
import pyarrow.parquet as pq

from bothways.data.stream import ArrowRow
from bothways.data.tables import BadRow, Row
from bothways.files import to_json

BULK_SUFFIXES = (".parquet", ".jsonl", ".csv")
CSV_DIGITS = 6  # of the numbers among the results, as in the predictions that `bothways evaluate` writes
# At least so many in a row group of the file in the end: a part may have 256 rows, and readers are slow with thousands
# of small groups.
ROW_GROUP_ROWS = 1 << 15
PYTHON_ROWS = 1024  # results that are Python objects at a time


class OwnColumns(NamedTuple):
    """The table's own columns of a part. rows: those that fit the format. columns: theirs, as the format writes them.
    bad: the rows that do not fit."""

    rows: list[Row]
    columns: Any
    bad: list[BadRow]


class RowFormat(Protocol):
    """How a part's rows and results are written, and how its parts become one file."""

    def own_columns(self, rows: Sequence[Row]) -> OwnColumns:
        """The columns that go through the job unchanged."""
        ...

    def write(self, path: Path, columns: Any, results: pa.Table) -> None:
        """Write one part. columns: of `own_columns`. results: of the same rows, in the same order."""
        ...

    def merge(self, parts: Sequence[Path], whole: Path) -> None:
        """Write all parts, in order, as one file."""
        ...


@dataclass(frozen=True)
class JsonLinesFormat:
    """A JSON object a row: the row's own fields, then the results."""

    def own_columns(self, rows: Sequence[Row]) -> OwnColumns:
        """The rows' values as they are; every row fits."""
        return OwnColumns(list(rows), [row.values for row in rows], [])

    def write(self, path: Path, columns: Any, results: pa.Table) -> None:
        """Write a line a row; what JSON has no type for, as text."""
        with path.open("w", encoding="utf-8") as file:
            rows = iter(columns)
            for batch in results.to_batches(max_chunksize=PYTHON_ROWS):
                for result in batch.to_pylist():
                    file.write(to_json({**next(rows), **result}, ensure_ascii=False, default=str) + "\n")

    def merge(self, parts: Sequence[Path], whole: Path) -> None:
        """Append the parts to each other."""
        with whole.open("wb") as file:
            _append(parts, file)


@dataclass(frozen=True)
class CsvFormat:
    """A line a row, as spreadsheets open it: UTF-8 with a byte order mark. Lists and objects are JSON in their cell.

    own: the names of the table's own columns; results: of the added ones. A row with further columns does not fit.
    """

    own: Sequence[str]
    results: Sequence[str]

    def own_columns(self, rows: Sequence[Row]) -> OwnColumns:
        """The values in the order of `own`, as cells."""
        good: list[Row] = []
        bad: list[BadRow] = []
        for row in rows:
            if unknown := next((name for name in row.values if name not in self.own), None):
                bad.append(BadRow(row.source, f"column {unknown!r} is not in the first rows"))
            else:
                good.append(row)
        return OwnColumns(good, [[_cell(row.values.get(name)) for name in self.own] for row in good], bad)

    def write(self, path: Path, columns: Any, results: pa.Table) -> None:
        """Write a line a row, without the header."""
        with path.open("w", encoding="utf-8", newline="") as file:
            writer, rows = csv.writer(file), iter(columns)
            for batch in results.to_batches(max_chunksize=PYTHON_ROWS):
                for result in batch.to_pylist():
                    writer.writerow([*next(rows), *(_cell(_rounded(result[name])) for name in self.results)])

    def merge(self, parts: Sequence[Path], whole: Path) -> None:
        """Write the header, and append the parts."""
        with whole.open("w", encoding="utf-8-sig", newline="") as file:
            csv.writer(file).writerow([*self.own, *self.results])
        with whole.open("ab") as appended:
            _append(parts, appended)


def _cell(value: Any) -> Any:
    return to_json(value, ensure_ascii=False, default=str) if isinstance(value, list | dict | bool) else value


def _rounded(value: Any) -> Any:
    """Numbers with `CSV_DIGITS` digits, those of a list too."""
    if isinstance(value, float):
        return float(f"{value:.{CSV_DIGITS}g}")
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def _append(parts: Sequence[Path], whole: IO[bytes]) -> None:
    for path in parts:
        with path.open("rb") as part:
            shutil.copyfileobj(part, whole)


@dataclass(frozen=True)
class ParquetFormat:
    """Own columns and results in one table. own: the schema of the table's own columns; results: of the added ones.

    The own columns of a Parquet file keep their values and types. Those of other tables get the types of the first
    rows (`RowStream.schema`); a row of other types or with further columns does not fit.
    """

    own: pa.Schema
    results: pa.Schema

    def own_columns(self, rows: Sequence[Row]) -> OwnColumns:
        """The columns as an Arrow table of the schema `own`."""
        if rows and isinstance(rows[0], ArrowRow):
            return OwnColumns(list(rows), self._arrow_rows(cast("Sequence[ArrowRow]", rows)), [])
        good: list[Row] = []
        bad: list[BadRow] = []
        for row in rows:
            if misfit := self._misfit(row.values):
                bad.append(BadRow(row.source, misfit))
            else:
                good.append(row)
        return OwnColumns(good, pa.Table.from_pylist([self._with_json(row.values) for row in good], self.own), bad)

    def _with_json(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A row's values, with those of columns without a type as JSON."""
        as_json = {field.name for field in self.own if field.metadata}
        return {
            name: to_json(value, ensure_ascii=False) if name in as_json and value is not None else value
            for name, value in values.items()
        }

    def _arrow_rows(self, rows: Sequence[ArrowRow]) -> pa.Table:
        """Rows of Parquet, without a detour by Python objects."""
        by_batch = [list(group) for _, group in itertools.groupby(rows, lambda row: id(row.batch))]
        batches = [group[0].batch.take(pa.array([row.index for row in group])) for group in by_batch]
        return pa.Table.from_batches(batches).cast(self.own)

    def _misfit(self, values: Mapping[str, Any]) -> str:
        """Why a row does not fit the types of the first rows; empty where it does."""
        for name, value in values.items():
            number = self.own.get_field_index(name)
            if number < 0:
                return f"column {name!r} is not in the first rows"
            field = self.own.field(number)
            if value is not None and not field.metadata and not _has_type(value, field.type):
                return f"column {name!r} is {str(value)[:40]!a}, in the first rows it is {field.type}"
        return ""

    def write(self, path: Path, columns: Any, results: pa.Table) -> None:
        """Write the own columns, then the results."""
        for name in results.column_names:
            columns = columns.append_column(results.schema.field(name), results[name])
        pq.write_table(columns, path, compression="zstd")

    def merge(self, parts: Sequence[Path], whole: Path) -> None:
        """Write the parts into row groups of at least `ROW_GROUP_ROWS`, reading as many at a time."""
        waiting: list[pa.Table] = []
        schema = pa.schema([*self.own, *self.results])
        with pq.ParquetWriter(whole, schema, compression="zstd") as writer:
            for path in parts:
                waiting.append(pq.read_table(path, partitioning=None))
                if sum(map(len, waiting)) >= ROW_GROUP_ROWS:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting = []
            if waiting:
                writer.write_table(pa.concat_tables(waiting))


def _has_type(value: Any, kind: pa.DataType) -> bool:
    if isinstance(value, bool):
        return bool(pa.types.is_boolean(kind))
    if isinstance(value, int) and abs(value) < 1 << 63:
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
    return bool(
        (isinstance(value, float) and pa.types.is_floating(kind))
        or (isinstance(value, str) and pa.types.is_string(kind))
    )
