"""Labelled rows from csv, tsv, jsonl, parquet, CoNLL columns and SQuAD json, or from any iterable of dictionaries.

A row remembers the file and line it came from, so that every complaint about it can say so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bothways.data.annotations import read_conll, read_squad
from bothways.errors import UserError, closest
from bothways.text.lines import Fault, Lines, is_unicode
from bothways.text.table_reader import TABLE_SUFFIXES, TableReader

CONLL_SUFFIXES = (".conll", ".conllu", ".bio")
LABELLED_SUFFIXES = (*TABLE_SUFFIXES, *CONLL_SUFFIXES, ".json")
MAX_NUMBER = 3e38  # float32, which targets are, ends at 3.4e38
WHOLE_FILE_CHARACTERS = 1 << 40  # no limit: a SQuAD file may be a single line, and is read as a whole anyway


@dataclass(frozen=True)
class Row:
    """A row of a table. values: by column. source: `file:line`, or `row 3` of rows that are no file."""

    values: Mapping[str, Any]
    source: str

    def text(self, column: str) -> str:
        """The text in a column. Raises UserError where it is absent, not text, or empty."""
        value = self.values.get(column)
        if isinstance(value, str) and value.strip():
            if not is_unicode(value):
                raise UserError(f"{self.source}: column {column!r} holds half a surrogate pair, which is no text")
            return value
        problem = (
            "is missing" if value is None else "is empty" if isinstance(value, str) else f"is {value!r}, not a text"
        )
        raise UserError(f"{self.source}: column {column!r} {problem}")

    def label(self, column: str) -> str:
        """The label in a column, as text. Raises UserError for what is empty or no label."""
        return as_label(self.values.get(column), f"{self.source}: column {column!r}")

    def number(self, column: str) -> float:
        """The number in a column. Raises UserError for what is no number, not finite, or beyond float32."""
        value = self.values.get(column)
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not abs(number) < MAX_NUMBER or isinstance(value, bool | np.bool_ | bytes):
            raise UserError(f"{self.source}: column {column!r} is {value!r}, not a number")
        return number

    def items(self, column: str) -> list[Any]:
        """The list in a column. Raises UserError for anything else."""
        value = self.values.get(column)
        if not isinstance(value, list | tuple | np.ndarray):
            raise UserError(f"{self.source}: column {column!r} is {str(value)[:60]!r}, not a list")
        return [*value]


def is_missing_value(value: Any) -> bool:
    """Whether this stands for no value: None, a float that is not a number, or what pandas and numpy have for it."""
    return (
        value is None
        or (isinstance(value, float | np.floating) and bool(value != value))
        or type(value).__name__ in ("NAType", "NaTType", "MaskedConstant")  # of pandas and numpy, without an import
    )


def as_label(value: Any, place: str) -> str:
    """A label as text; whole numbers without a decimal point.

    place: where it is, for errors. Raises UserError for what is empty or no label.
    """
    value = value.item() if isinstance(value, np.generic) else value
    if is_missing_value(value) or (isinstance(value, str) and not value.strip()):
        raise UserError(f"{place} has no label")
    if not isinstance(value, str | int | float) or not is_unicode(str(value)):
        raise UserError(f"{place} is {str(value)[:40]!a}, not a label")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of whole numbers with a gap in it comes as floats
    return str(value).strip()


def read_rows(table: str | Path | Iterable[Mapping[str, Any]], columns: Iterable[str] = ()) -> list[Row]:
    """All rows of a file, or of an iterable of dictionaries.

    columns: names that every row must have. Raises UserError for a missing, empty, binary or undecodable file, an
    unknown suffix, a malformed line, and a column that is not there, with a list of those that are.
    """
    if not isinstance(table, Iterable | Path):
        raise UserError(f"expected a file or rows, found {table!r}")
    if not isinstance(table, str | Path):
        if isinstance(table, Mapping) or hasattr(table, "columns"):
            cure = "df.to_dict('records')" if hasattr(table, "to_dict") else "a list of dictionaries, one a row"
            raise UserError(f"expected rows, found a {type(table).__name__} of columns; give {cure}")
        rows = []
        for number, values in enumerate(table, 1):
            if not isinstance(values, Mapping):
                raise UserError(f"row {number}: expected a dictionary of columns, found {type(values).__name__}")
            rows.append(Row(dict(values), f"row {number}"))
        name = "the rows given"
    else:
        path = Path(table)
        name = str(path)
        rows = list(_read_file(path))
    if not rows:
        raise UserError(f"{name}: no rows")
    for column in columns:
        missing = next((row for row in rows if column not in row.values), None)
        if missing is not None:
            present = [key for key in missing.values if key is not None]
            raise UserError(
                f"{missing.source}: no column {column!r}{closest(column, present)}; "
                f"columns present: {', '.join(map(str, present)) or 'none'}"
            )
    return rows


def _read_file(path: Path) -> Iterator[Row]:
    try:
        is_file = path.is_file()
    except (OSError, ValueError) as error:  # a name that is too long, or has a NUL
        raise UserError(
            f"{str(path)[:60]!a}: is no name of a file ({getattr(error, 'strerror', None) or error})"
        ) from error
    if not is_file:
        raise UserError(f"{path}: {'is a folder, not a file' if path.is_dir() else 'no such file'}")
    suffix = path.suffix.lower()
    if suffix not in LABELLED_SUFFIXES:
        known = ", ".join(LABELLED_SUFFIXES)
        raise UserError(f"{path}: {suffix or 'no'} suffix; a table of labelled rows ends in one of {known}")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty")
    try:
        if suffix in TABLE_SUFFIXES:
            yield from _read_table(path)
        else:
            read = read_squad if suffix == ".json" else read_conll
            yield from (Row(values, source) for values, source in read(path, _text_lines(path)))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_table(path: Path) -> Iterator[Row]:
    reader = TableReader(path)
    for row in reader.rows():
        place = reader.place(row.line)
        if isinstance(row, Fault):
            raise UserError(f"{place}: {row.message}")
        yield Row(row.values, place)


def _text_lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        lines = Lines(file, WHOLE_FILE_CHARACTERS, allow_nul=False)
        for line in lines:
            if fault := lines.take_fault():
                raise UserError(f"{path}:{fault.line}: {fault.message}")
            yield line
