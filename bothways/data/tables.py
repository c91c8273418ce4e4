"""Labelled rows from csv, tsv, jsonl, parquet, CoNLL columns and SQuAD json, from any iterable of dictionaries, or from
a table of another library.

A row remembers the file and line it came from, so that every complaint about it can say so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from bothways.data.annotations import ConllReader, is_conll
from bothways.data.frames import frame_columns, frame_records
from bothways.errors import UserError, as_shown, closest, only_in_python, option
from bothways.remote_files import local_file
from bothways.text.encodings import UTF8, checked_encoding
from bothways.text.json_rows import WHOLE_FILE_CHARACTERS, read_json_rows
from bothways.text.lines import (
    Fault,
    Lines,
    damage_of,
    encoding_remarks,
    is_unicode,
    uncompressed_suffix,
    utf8_bytes,
)
from bothways.text.table_reader import TABLE_SUFFIXES, TableReader, TableReaderOptions

CONLL_SUFFIXES = (".conll", ".conllu", ".bio")
TableFormat = Literal["csv", "tsv", "jsonl", "parquet", "conll", "conllu", "squad"]
LABELLED_SUFFIXES = (*TABLE_SUFFIXES, *CONLL_SUFFIXES, ".json")
MAX_NUMBER = 3e38  # float32, which targets are, ends at 3.4e38


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
            "is missing"
            if is_missing_value(value)
            else "is empty"
            if isinstance(value, str)
            else f"is {value!r}, not a text"
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
            comma = isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+,\d+\s*", value)
            hint = f"; write {str(value).strip().replace(',', '.')}, with a point" if comma else ""
            raise UserError(f"{self.source}: column {column!r} is {value!r}, not a number{hint}")
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


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used. source: `file:line`. reason: a sentence without the place."""

    source: str
    reason: str


def _be_silent(line: str) -> None:
    """The default of `TableOptions.say`."""


@dataclass(frozen=True)
class TableOptions:
    """How a table is read. format: what it is, where its name does not say it. say: called with what a user should
    know of how the file was read, separators say. encoding: of text that is not UTF-8. Raises UserError for other
    formats, and encodings that there are not."""

    format: TableFormat | None = None
    say: Callable[[str], None] = _be_silent
    encoding: str = UTF8

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in get_args(TableFormat):
            raise UserError(f"format {self.format!r}: expected one of {', '.join(get_args(TableFormat))}")
        checked_encoding(self.encoding)

    def suffix_of(self, path: Path) -> str:
        """The suffix by which the file is read."""
        return ".json" if self.format == "squad" else f".{self.format}" if self.format else uncompressed_suffix(path)


def is_labelled_table(path: str | Path) -> bool:
    """Whether a file's name says that it is a table of rows."""
    return uncompressed_suffix(Path(path)) in LABELLED_SUFFIXES


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


def read_rows(
    table: str | Path | Iterable[Mapping[str, Any]], columns: Iterable[str] = (), options: TableOptions | None = None
) -> list[Row]:
    """All rows of a file, also behind a URL, of an iterable of dictionaries, or of a table of pandas, polars, pyarrow
    and the like.

    columns: names that every row must have. Raises UserError for a missing, empty, binary or undecodable file, a name
    that does not say what it is, a malformed line, and a column that is not there, with a list of those that are.
    """
    rows = []
    for row in _entries(table, options or TableOptions()):
        if isinstance(row, BadRow):
            raise UserError(f"{row.source}: {row.reason}")
        rows.append(row)
    if not rows:
        raise _no_rows(table)
    for column in columns:
        missing = next((row for row in rows if column not in row.values), None)
        if missing is not None:
            present = [str(key) for key in missing.values if key is not None]
            raise UserError(
                f"{missing.source}: no column {column!r}{closest(column, present)}; "
                f"columns present: {', '.join(present) or 'none'}"
            )
    return rows


def read_table(
    table: str | Path | Iterable[Mapping[str, Any]], options: TableOptions | None = None
) -> list[Row | BadRow]:
    """All rows as `read_rows` gives them; what it would raise for one row is in the row's place."""
    rows = list(_entries(table, options or TableOptions()))
    if not rows:
        raise _no_rows(table)
    return rows


def _no_rows(table: Any) -> UserError:
    return UserError(f"{table if isinstance(table, str | Path) else 'the rows given'}: no rows")


def _entries(table: Any, options: TableOptions) -> Iterator[Row | BadRow]:
    if isinstance(table, str | Path):
        yield from _read_file(local_file(table), options)
        return
    for number, values in enumerate(_given_rows(table), 1):
        if isinstance(values, Mapping):  # what pandas writes for no value is none
            known = {name: None if is_missing_value(value) else value for name, value in values.items()}
            yield Row(known, f"row {number}")
        else:
            yield BadRow(f"row {number}", f"expected a dictionary of columns, found {type(values).__name__}")


def _given_rows(table: Any) -> Iterable[Any]:
    """What is to be a dictionary each, out of rows that are no file. Raises UserError for what holds no rows."""
    if frame_columns(table) is not None:
        return frame_records(table)
    if isinstance(table, Mapping):
        listed = any(isinstance(value, list | tuple | np.ndarray) for value in table.values())
        cure = "[dict(zip(table, row)) for row in zip(*table.values())]" if listed else "[row]"
        raise UserError(
            f"expected rows, found a {type(table).__name__} of columns; give a list of dictionaries, one a row: {cure}"
        )
    if not isinstance(table, Iterable) or isinstance(table, bytes):
        raise UserError(f"expected a file or rows, found {table!r}")
    return table


def _number_hint(path: Path) -> str:
    """What to say where a table that is not there has a number for its name, a share that was given as text."""
    is_number = re.fullmatch(r"0?\.\d+", str(path)) is not None
    return only_in_python(f"; a share is a number, {path} without quotes") if is_number else ""


def _read_file(path: Path, options: TableOptions) -> Iterator[Row | BadRow]:
    try:
        is_file = path.is_file()
    except (OSError, ValueError) as error:  # a name that is too long, or has a NUL
        raise UserError(
            f"{str(path)[:60]!a}: is no name of a file ({getattr(error, 'strerror', None) or error})"
        ) from error
    if not is_file:
        raise UserError(f"{path}: {'is a folder, not a file' if path.is_dir() else 'no such file'}{_number_hint(path)}")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty")
    suffix = options.suffix_of(path)
    try:
        if suffix in TABLE_SUFFIXES:
            yield from _read_columns(path, suffix, options)
        elif suffix == ".json":
            yield from _located(read_json_rows(path, _text_lines(path, options)))
        else:
            yield from _read_conll(path, suffix, options)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_columns(path: Path, suffix: str, options: TableOptions) -> Iterator[Row | BadRow]:
    reader = TableReader(path, TableReaderOptions(suffix=suffix, encoding=options.encoding))
    for row in reader.rows():
        place = reader.place(row.line)
        if not isinstance(row, Fault):
            yield Row(row.values, place)
        elif row.final:
            raise UserError(f"{place}: {row.message}")
        else:
            yield BadRow(place, row.message)
    _say_remarks(path, reader.remarks, options)


def _read_conll(path: Path, suffix: str, options: TableOptions) -> Iterator[Row | BadRow]:
    """Rows of CoNLL columns, also of a file whose name does not say that it has them, .txt or .train or .testa."""
    known = suffix in CONLL_SUFFIXES
    try:
        lines = list(_text_lines(path, options))
    except UserError:
        if known:
            raise
        raise _unknown_suffix(path) from None
    if not known and not is_conll(lines):
        raise _unknown_suffix(path)
    reader = ConllReader(str(path), lines, suffix == ".conllu")
    yield from _located(reader.sentences())
    _say_remarks(path, reader.remarks if known else ["read as CoNLL columns", *reader.remarks], options)


def _unknown_suffix(path: Path) -> UserError:
    return UserError(
        f"{path}: {path.suffix.lower() or 'no'} suffix; a table of labelled rows ends in one of "
        f"{', '.join(LABELLED_SUFFIXES)}, or {option('format')} says what it is"
    )


def _located(found: Iterable[tuple[Mapping[str, Any] | str, str]]) -> Iterator[Row | BadRow]:
    for values, source in found:
        source = as_shown(source)
        yield BadRow(source, values) if isinstance(values, str) else Row(values, source)


def _say_remarks(path: Path, remarks: Iterable[str], options: TableOptions) -> None:
    for remark in remarks:
        options.say(f"{path}: {remark}")


def _text_lines(path: Path, options: TableOptions) -> Iterator[str]:
    lines = None
    with path.open("rb") as raw:
        try:
            with utf8_bytes(raw, path, options.encoding) as file:
                _say_remarks(path, encoding_remarks(file), options)
                lines = Lines(file, WHOLE_FILE_CHARACTERS, allow_nul=False)
                for line in lines:
                    if fault := lines.take_fault():
                        raise UserError(f"{path}:{fault.line}: {fault.message}")
                    yield line
        except OSError as error:
            raise UserError(f"{path}: {damage_of(error, lines).message}") from error
