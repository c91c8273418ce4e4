"""The records of a .csv or .tsv as people and spreadsheets leave them: separators, quotes, comments, empty columns."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from bothways.text.lines import Fault, Lines

FIELD_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_NO_SEPARATORS = str.maketrans(dict.fromkeys(FIELD_SEPARATORS))
_ROWS_AHEAD = 20  # lines that are looked at where a header has several separators
_COMMENT_LINES = 100  # so many at the head of a file are looked at
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
# A field as csv writers leave it where they had to quote: all of it in quotes, each quote in it doubled, one at least.
_DOUBLED_QUOTES = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')
_EXCEL_SEPARATOR = re.compile(r"""["']?sep=(.)["']?\s*""", re.IGNORECASE)


class CsvRecord(NamedTuple):
    """A row's values by column. line: where it begins, from 1."""

    values: dict[str, str]
    line: int


@dataclass(frozen=True)
class CsvDialect:
    """What a file's first lines say of how it is read, for extents of it.

    header: the names. separator: between fields. quotes: whether fields may stand in quotes. remarks: what a user
    should know of it. first_line: the number of the line behind the header.
    """

    header: tuple[str, ...]
    separator: str
    quotes: bool
    remarks: tuple[str, ...]
    first_line: int


class CsvRecords(Iterator[CsvRecord | Fault]):
    """The records behind the header, each as its values or as what is wrong with it; blank lines are none.

    The separator of a .csv is the one that its header has outside quotes: comma, semicolon, tab or bar. Where it has
    several, it is the one by which the first rows have as many fields as the header; if several fit, that is a fault.
    In .tsv a tab always parts fields and a line end always rows, as text/tab-separated-values has it: a quote is a
    character. Two exceptions are no ambiguity: where the header's names stand in quotes it is csv with tabs, and a
    field whose quotes all are doubled inside a pair of quotes is unquoted.

    header: the names, without the blanks around them and without nameless columns at the end. remarks: what a user
    should know of how the file was read.
    """

    def __init__(
        self,
        lines: Lines,
        tabs: bool,
        max_field_characters: int,
        unique: frozenset[str] | None,
        dialect: CsvDialect | None = None,
    ) -> None:
        """tabs: of a .tsv. unique: names that must not repeat; None: none may. dialect: of a file of which the lines
        are an extent behind the header."""
        self._lines, self._limit, self._unique = _HeldLines(lines), max_field_characters, unique
        self.header: list[str] = []
        self.remarks: list[str] = []
        self._separator, self._quotes = "\t" if tabs else "", not tabs
        self._ended = False
        self._fitting: list[str] = []  # the separators that fit the header and the first rows, if there are several
        self._records: Iterator[list[str]] | None = None
        self._first_line = 0
        if dialect is not None:
            self.header, self.remarks = list(dialect.header), list(dialect.remarks)
            self._separator, self._quotes, self._first_line = dialect.separator, dialect.quotes, dialect.first_line
            self._records = self._split_lines()

    @property
    def dialect(self) -> CsvDialect:
        """How the file is read, once there was a record."""
        return CsvDialect(tuple(self.header), self._separator, self._quotes, tuple(self.remarks), self._first_line)

    def __next__(self) -> CsvRecord | Fault:
        while not self._ended:
            if self._records is None:
                self._records = self._open()
                if len(self._fitting) > 1:
                    self._ended = True
                    return self._ambiguous()
            line, fields, fault = self._next_fields(self._records)
            if fault is not None:
                if not self.header or fault.reason == "line too long":
                    # Rows after it can no longer be told apart: nobody knows whether a quote was open.
                    fault = replace(fault, reason=f"{fault.reason}, nothing after it read", final=True)
                    self._ended = True
                return fault
            if fields is None:
                break
            if not self.header:
                if repeated := self._read_header(fields, line):
                    self._ended = True
                    return repeated
            elif fields:
                return self._record(fields, line)
        raise StopIteration

    def _open(self) -> Iterator[list[str]]:
        """Find where the header is and how it separates; the records from there."""
        first = self._skip_comments()
        if named := _EXCEL_SEPARATOR.fullmatch(first.rstrip("\r\n")):
            self._separator, first = named[1], ""
            next(self._lines)
        elif not self._separator:
            self._fitting = _fitting_separators(first, self._lines.ahead(_ROWS_AHEAD))
            self._separator = self._fitting[0]
            if self._separator != ",":
                self.remarks.append(f"fields are parted by {FIELD_SEPARATORS[self._separator]}")
        elif first.startswith('"') and all(_QUOTED.fullmatch(name) for name in first.rstrip("\r\n").split("\t")):
            self._quotes = True
            self.remarks.append("the header's names stand in quotes, so quotes are read as in .csv")
        return self._split_lines()

    def _split_lines(self) -> Iterator[list[str]]:
        """The fields of the lines to come."""
        if self._quotes:
            # Strict, or else a quote that is never closed would silently swallow the rows after it.
            return csv.reader(self._lines, delimiter=self._separator, strict=True)
        return (_plain_fields(line) for line in self._lines)

    def _ambiguous(self) -> Fault:
        names = " and ".join(FIELD_SEPARATORS[separator] for separator in self._fitting)
        cure = "a line sep=, before the header says that it is the comma, sep=; the semicolon"
        return Fault(
            self._lines.number + 1, "separators unclear", f"{names}; {cure}",
            f"{names} both part the header and the rows; {cure}", final=True,
        )  # fmt: skip

    def _skip_comments(self) -> str:
        """The header's line, which stays to be read. Lines before it that begin with # are comments if they have
        another number of fields than the first line that does not."""
        held: list[str] = []
        for line in self._lines:
            held.append(line)
            if not _is_blank(line) and (not line.startswith("#") or len(held) > _COMMENT_LINES):
                break
        self._lines.hold(held)
        if not held or self._lines.lines.fault is not None:
            return ""
        fields = len(_fields_of(held[-1], self._separator))
        comments = 0
        for line in held[:-1]:
            if not _is_blank(line):
                if len(_fields_of(line, self._separator)) == fields:
                    break
                comments += 1
            next(self._lines)
        if comments:
            self.remarks.append(f"{comments:,} comment lines before the header left out")
        return self._lines.held

    def _next_fields(self, records: Iterator[list[str]]) -> tuple[int, list[str] | None, Fault | None]:
        """A record's first line and its fields, of at most the limit's characters, None after the last; or what is
        wrong. The csv module has one limit for the whole process, so it is put back."""
        lines, line, fields = self._lines.lines, self._lines.number + 1, None
        before = csv.field_size_limit(self._limit)
        try:
            fields = next(records, None)
            if not self._quotes and max(map(len, fields or [""])) > self._limit:
                raise csv.Error(f"field larger than field limit ({self._limit})")
        except csv.Error as error:
            lines.note("not valid csv", str(error), _csv_sentence(error, self._lines.number), line)
        finally:
            csv.field_size_limit(before)
        return line, fields, lines.take_fault()

    def _read_header(self, fields: list[str], line: int) -> Fault | None:
        names = [name.strip() for name in fields]
        while names and not names[-1]:
            names.pop()
        self.header, self._first_line = names, self._lines.number + 1
        return repeated_column(line, names, "stands twice in the header", self._unique)

    def _record(self, fields: list[str], line: int) -> CsvRecord | Fault:
        found, expected = len(fields), len(self.header)
        if found > expected and not any(map(str.strip, fields[expected:])):
            found = expected  # spreadsheets end rows with separators
        if found == expected and not (fields[-1].startswith('"') and self._is_torn(fields[-1])):
            return CsvRecord(dict(zip(self.header, fields, strict=False)), line)
        parted = "" if self._separator == "," and self._quotes else f", parted by {FIELD_SEPARATORS[self._separator]}"
        quotes = not self._quotes and any('"' in field for field in fields)
        hint = "; in .tsv quotes hold no tabs and no line ends: save the table as .csv or .jsonl" if quotes else ""
        if found == expected:
            return Fault(line, "quoted line end", f"a field is not closed{hint}", f"a quoted field is not closed{hint}")
        detail = f"{found}, the header has {expected}{hint}"
        sentence = f"{found} fields, but the header has {expected}{parted}: {', '.join(self.header)}{hint}"
        return Fault(line, "wrong number of fields", detail, sentence)

    def _is_torn(self, field: str) -> bool:
        """Whether a .tsv's last field is the first line of a quoted text: the line after it has too few fields."""
        if self._quotes or not field.count('"') % 2:
            return False
        after = next(self._lines, None)
        if after is None:
            return False
        self._lines.hold([after])
        return bool(after.strip()) and len(after.split("\t")) < len(self.header)


class _HeldLines(Iterator[str]):
    """Lines of which some were looked at before their turn. number: of the last line that was given out, from 1."""

    def __init__(self, lines: Lines) -> None:
        self.lines, self.number = lines, lines.number
        self._held: list[str] = []
        self._faults: list[Fault | None] = []  # of the first lines that are held

    @property
    def held(self) -> str:
        """The next line, if it is held; else empty."""
        return self._held[0] if self._held else ""

    def __next__(self) -> str:
        line = self._held.pop(0) if self._held else next(self.lines)
        if self._faults and (fault := self._faults.pop(0)):
            self.lines.fault = self.lines.fault or fault
        self.number += 1
        return line

    def ahead(self, count: int) -> list[str]:
        """The lines after the next, up to so many; they stay to be given out, with what is wrong with them."""
        before, self.lines.fault = self.lines.fault, None
        self._faults += [None] * (len(self._held) - len(self._faults))
        while len(self._held) <= count and (line := next(self.lines, None)) is not None:
            self._held.append(line)
            self._faults.append(self.lines.take_fault())
        self.lines.fault = before
        return self._held[1:]

    def hold(self, lines: list[str]) -> None:
        """Give out these, the last that were given, once more."""
        self._held = [*lines, *self._held]
        self.number -= len(lines)


def repeated_column(line: int, names: list[str], how: str, unique: frozenset[str] | None = None) -> Fault | None:
    """The fault of a table with two columns of the same name, or None. unique: the names that matter; None: all."""
    repeated = sorted({name for name in names if names.count(name) > 1 and (unique is None or name in unique)})
    if not repeated:
        return None
    sentence = f"the column {repeated[0]!r} {how}; give each a name of its own"
    return Fault(line, "repeated column", repr(repeated[0]), sentence, final=True)


def _separators_of(line: str) -> list[str]:
    """The separators that a line has outside quotes, the comma first, then the most frequent; the comma for none."""
    bare = _QUOTED.sub("", line)
    found = [separator for separator in FIELD_SEPARATORS if separator in bare]
    return sorted(found, key=lambda separator: (separator != ",", -bare.count(separator))) or [","]


def _fitting_separators(header: str, rows: list[str]) -> list[str]:
    """The separators of the header by which all of the rows, its next lines, have as many fields as it; where that is
    none of them, the likeliest."""
    found = _separators_of(header)
    if len(found) == 1 or not rows:
        return found[:1]
    return [separator for separator in found if _fits(header, rows, separator)] or found[:1]


def _fits(header: str, rows: list[str], separator: str) -> bool:
    """Whether all rows have the header's fields; blank ones behind them do not count."""
    try:
        names, *records = [fields for fields in csv.reader([header, *rows], delimiter=separator) if fields]
    except csv.Error:
        return False
    if len(rows) == _ROWS_AHEAD:
        records = records[:-1]  # it may go on
    width = max((n for n, name in enumerate(names, 1) if name.strip()), default=0)
    return all(len(fields) >= width and not any(map(str.strip, fields[width:])) for fields in records)


def _is_blank(line: str) -> bool:
    """Whether a line has nothing, or separators alone, as spreadsheets leave rows above a table."""
    return not line.translate(_NO_SEPARATORS).strip()


def _fields_of(line: str, separator: str) -> list[str]:
    """The fields of a line by itself."""
    try:
        return next(csv.reader([line], delimiter=separator or _separators_of(line)[0]), [])
    except csv.Error:
        return []


def _plain_fields(line: str) -> list[str]:
    line = line.rstrip("\r\n")
    return [_unquoted(field) if field.startswith('"') else field for field in line.split("\t")] if line else []


def _unquoted(field: str) -> str:
    return field[1:-1].replace('""', '"') if _DOUBLED_QUOTES.fullmatch(field) else field


def _csv_sentence(error: csv.Error, last_line: int) -> str:
    about_quotes = "quote" in str(error) or "delimiter" in str(error) or "expected after" in str(error)
    hint = "; a quote that opens a field must close it" if about_quotes else ""
    return f"not valid csv: {error} (up to line {last_line}){hint}"
