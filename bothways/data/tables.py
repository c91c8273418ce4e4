"""Labelled rows from csv, tsv, jsonl, parquet, CoNLL columns and SQuAD json, or from any iterable of dictionaries.

A row remembers the file and line it came from, so that every complaint about it can say so.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bothways.data.annotations import read_conll, read_squad
from bothways.errors import UserError, closest
from bothways.text.lines import is_unicode, next_row

FIELD_CHARACTERS = 1 << 27
LARGEST = 3e38  # what float32 holds
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".conll", ".conllu", ".bio", ".json")


@dataclass(frozen=True)
class Row:
    """values by column; source: `file:line`."""

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
        """The number in a column. Raises UserError for what is none, or not finite."""
        value = self.values.get(column)
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not abs(number) < LARGEST or isinstance(value, bool | np.bool_ | bytes):
            raise UserError(f"{self.source}: column {column!r} is {value!r}, not a number")
        return number

    def items(self, column: str) -> list[Any]:
        """The list in a column. Raises UserError for anything else."""
        value = self.values.get(column)
        if not isinstance(value, list | tuple | np.ndarray):
            raise UserError(f"{self.source}: column {column!r} is {str(value)[:60]!r}, not a list")
        return [*value]


def as_label(value: Any, place: str) -> str:
    """A label as text; whole numbers without a decimal point. Raises UserError, naming the place, for what is none."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and value != value):
        raise UserError(f"{place} has no label")
    if not isinstance(value, str | int | float) or not is_unicode(str(value)):
        raise UserError(f"{place} is {str(value)[:40]!a}, not a label")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of whole numbers with a gap in it comes as floats
    return str(value).strip()


def read_rows(table: str | Path | Iterable[Mapping[str, Any]], columns: Iterable[str] = ()) -> list[Row]:
    """All rows of a file, or of an iterable of dictionaries.

    columns: names that must be there. Raises UserError: a missing, empty, binary or undecodable file, an unknown
    suffix, a malformed line, a column that is not there (the ones that are get listed).
    """
    if not isinstance(table, Iterable | Path):
        raise UserError(f"expected a file or rows, found {table!r}")
    if not isinstance(table, str | Path):
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
    if not path.is_file():
        raise UserError(f"{path}: {'is a folder, not a file' if path.is_dir() else 'no such file'}")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise UserError(f"{path}: {suffix or 'no'} suffix; a table of labelled rows ends in one of {known}")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty")
    try:
        if suffix == ".parquet":
            yield from _read_parquet(path)
        elif suffix in (".jsonl", ".ndjson"):
            yield from _read_jsonl(path)
        elif suffix in (".conll", ".conllu", ".bio"):
            yield from (Row(values, source) for values, source in read_conll(path, text_lines(path)))
        elif suffix == ".json":
            yield from (Row(values, source) for values, source in read_squad(path, text_lines(path)))
        else:
            yield from _read_csv(path, "\t" if suffix == ".tsv" else ",")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def text_lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if b"\0" in line:
                raise UserError(f"{path}:{number}: a NUL byte; this is a binary file, not text")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}:{number}: byte {error.start + 1} of the line, 0x{line[error.start]:02x}, is not UTF-8; "
                    "save the file as UTF-8"
                ) from error
            yield text


def _read_csv(path: Path, delimiter: str) -> Iterator[Row]:
    line = 0
    reader = csv.reader(text_lines(path), delimiter=delimiter, strict=True)
    try:
        header = next_row(reader, FIELD_CHARACTERS) or []
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise UserError(f"{path}:1: the column {twice[0]!r} stands twice in the header")
        line = reader.line_num
        while (values := next_row(reader, FIELD_CHARACTERS)) is not None:
            source, line = f"{path}:{line + 1}", reader.line_num
            if not values:
                continue  # a blank line
            if len(values) != len(header):
                raise UserError(
                    f"{source}: {len(values)} fields, but the header has {len(header)}: {', '.join(header)}"
                )
            yield Row(dict(zip(header, values, strict=True)), source)
    except csv.Error as error:
        hint = (
            "; a quote that opens a field must close it" if "quote" in str(error) or "delimiter" in str(error) else ""
        )
        raise UserError(f"{path}:{line + 1}: not valid csv: {error}{hint}") from error


def _read_jsonl(path: Path) -> Iterator[Row]:
    for number, line in enumerate(text_lines(path), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{number}: not valid JSON: {error.msg} at character {error.pos + 1}") from error
        except (ValueError, RecursionError) as error:  # a number of thousands of digits; nested too deeply
            raise UserError(f"{path}:{number}: not readable JSON: {error}") from error
        if not isinstance(values, dict):
            raise UserError(f"{path}:{number}: expected a JSON object, found {type(values).__name__}")
        yield Row(values, f"{path}:{number}")


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        file = pq.ParquetFile(path)
        rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
        for number, values in enumerate(rows, 1):
            yield Row(values, f"{path}: row {number}")
    except pa.ArrowException as error:
        raise UserError(f"{path}: not a readable parquet file: {str(error).splitlines()[0]}") from error
