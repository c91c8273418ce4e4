"""The results of a long run as a folder of complete parts, which become one file in the end.

A part is complete or absent: its file of results, `FIRST-END.parquet` or `.jsonl` by the rows it is of, and then its
`.json` (which rows were bad, how many were cut short), by which it counts.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import pyarrow as pa
import pyarrow.parquet as pq

from bothways.data.stream import ArrowRow, BadRow
from bothways.data.tables import Row
from bothways.errors import UserError
from bothways.files import read_json, sync, user_errors, write_json

MERGED_ROWS = 1 << 15  # of a row group in the end, about
BATCH = 1024  # rows that are Python objects at a time


class Format(Protocol):
    """How results are written. What `carried` makes of a part's rows is written beside the results."""

    def carried(self, rows: Sequence[Row]) -> tuple[list[Row], Any, list[BadRow]]:
        """The rows that fit, their columns, and the rows that do not fit."""
        ...

    def write(self, path: Path, columns: Any, results: pa.Table) -> None:
        """One part: what `carried` gave, and the results of the same rows."""
        ...

    def merge(self, parts: Sequence[Path], whole: Path) -> None:
        """All parts, in order, as one file."""
        ...


@dataclass(frozen=True)
class JsonLines:
    """A JSON object a row: the row's own fields, then the results."""

    def carried(self, rows: Sequence[Row]) -> tuple[list[Row], Any, list[BadRow]]:
        return list(rows), [row.values for row in rows], []

    def write(self, path: Path, columns: Any, results: pa.Table) -> None:
        with path.open("w", encoding="utf-8") as file:
            rows = iter(columns)
            for batch in results.to_batches(max_chunksize=BATCH):
                for found in batch.to_pylist():
                    file.write(json.dumps({**next(rows), **found}, ensure_ascii=False, default=str) + "\n")

    def merge(self, parts: Sequence[Path], whole: Path) -> None:
        with whole.open("wb") as file:
            for path in parts:
                with path.open("rb") as part:
                    shutil.copyfileobj(part, file)


@dataclass(frozen=True)
class Parquet:
    """own: the table's own columns; results: those that are added."""

    own: pa.Schema
    results: pa.Schema

    def carried(self, rows: Sequence[Row]) -> tuple[list[Row], Any, list[BadRow]]:
        if rows and isinstance(rows[0], ArrowRow):
            return list(rows), self._as_they_are(cast("Sequence[ArrowRow]", rows)), []
        good: list[Row] = []
        bad: list[BadRow] = []
        for row in rows:
            problem = self._unfit(row.values)
            bad.append(BadRow(row.source, problem)) if problem else good.append(row)
        return good, pa.Table.from_pylist([self._typed(row.values) for row in good], self.own), bad

    def _typed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A row with what has no type of its own as JSON."""
        as_json = {field.name for field in self.own if field.metadata}
        return {
            name: json.dumps(value, ensure_ascii=False) if name in as_json and value is not None else value
            for name, value in values.items()
        }

    def _as_they_are(self, rows: Sequence[ArrowRow]) -> pa.Table:
        runs = [list(run) for _, run in itertools.groupby(rows, lambda row: id(row.batch))]
        batches = [run[0].batch.take(pa.array([row.index for row in run])) for run in runs]
        return pa.Table.from_batches(batches).cast(self.own)

    def _unfit(self, values: Mapping[str, Any]) -> str:
        """Why a row does not fit the types of the first rows, or nothing."""
        for name, value in values.items():
            number = self.own.get_field_index(name)
            if number < 0:
                return f"column {name!r} is not in the first rows"
            field = self.own.field(number)
            if value is not None and not field.metadata and not _fits(value, field.type):
                return f"column {name!r} is {str(value)[:40]!a}, in the first rows it is {field.type}"
        return ""

    def write(self, path: Path, columns: Any, results: pa.Table) -> None:
        for name in results.column_names:
            columns = columns.append_column(results.schema.field(name), results[name])
        pq.write_table(columns, path, compression="zstd")

    def merge(self, parts: Sequence[Path], whole: Path) -> None:
        waiting: list[pa.Table] = []
        schema = pa.schema([*self.own, *self.results])
        with pq.ParquetWriter(whole, schema, compression="zstd") as writer:
            for path in parts:
                waiting.append(pq.read_table(path, partitioning=None))
                if sum(map(len, waiting)) >= MERGED_ROWS:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting = []
            if waiting:
                writer.write_table(pa.concat_tables(waiting))


def _fits(value: Any, kind: pa.DataType) -> bool:
    if isinstance(value, bool):
        return bool(pa.types.is_boolean(kind))
    if isinstance(value, int) and abs(value) < 1 << 63:
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
    return bool(
        (isinstance(value, float) and pa.types.is_floating(kind))
        or (isinstance(value, str) and pa.types.is_string(kind))
    )


@dataclass
class Report:
    """rows: of the table; bad and truncated: of them; resumed: those that an earlier run had done."""

    rows: int = 0
    bad: int = 0
    truncated: int = 0
    resumed: int = 0


@dataclass
class Parts:
    """The parts of `out`, in `out`.parts."""

    out: Path
    format: Format
    report: Report = field(default_factory=Report)
    _done: list[Path] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.out.with_name(f"{self.out.name}.parts")

    @property
    def _done_with(self) -> Path:
        return self.out.with_name(f".{self.out.name}.done")

    @property
    def bad_rows(self) -> Path:
        """Where the rows that could not be used are told, with the reason."""
        return self.out.with_name(f"{self.out.name}.bad.jsonl")

    def open(self, description: dict[str, Any]) -> None:
        """Find what is there already. Raises UserError for a result that is complete, and for another run's parts."""
        manifest = self.folder / "manifest.json"
        shutil.rmtree(self._done_with, ignore_errors=True)
        if not manifest.exists():
            for path in (self.out, self.bad_rows):
                if path.exists():
                    raise UserError(f"--out {self.out}: {path} is there already; remove it, or name another")
            if any(self.folder.glob("*")):
                raise UserError(f"--out {self.out}: {self.folder} is not empty and not of a run; remove it")
            with user_errors(self.folder):
                self.folder.mkdir(exist_ok=True)
            write_json(manifest, description)
        before, now = read_json(manifest), json.loads(json.dumps(description))
        differ = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        if differ:
            name = differ[0]
            raise UserError(
                f"{self.folder}: the parts of another run, of which {name} was {before.get(name)!r} and is "
                f"{now.get(name)!r} now; remove the folder to begin anew"
            )
        for path in sorted(self.folder.glob("*-*.json")):
            first, end = map(int, path.stem.split("-"))
            if first != self.report.rows:
                raise UserError(f"{self.folder}: the part of row {self.report.rows + 1} is missing; remove the folder")
            self._count(path, read_json(path), end - first)
        self.report.resumed = self.report.rows

    def write(self, rows: int, columns: Any, results: pa.Table, bad: Sequence[BadRow], truncated: int) -> None:
        """Add the part of the next `rows` rows."""
        begin = self.report.rows
        path = self.folder / f"{begin:012d}-{begin + rows:012d}{self.out.suffix}"
        with user_errors(path):
            self.format.write(path, columns, results)
            sync(path)
        counted = {"bad": [{"row": one.source, "reason": one.reason} for one in bad], "truncated": truncated}
        write_json(path.with_suffix(".json"), counted)
        self._count(path.with_suffix(".json"), counted, rows)

    def _count(self, path: Path, counted: dict[str, Any], rows: int) -> None:
        self._done.append(path)
        self.report.rows += rows
        self.report.bad += len(counted["bad"])
        self.report.truncated += counted["truncated"]

    def merge(self) -> None:
        """One file of all parts, and one of the bad rows where there are any; then the parts go."""
        whole, side = self.folder / f"whole{self.out.suffix}", self.folder / "bad.jsonl"
        with user_errors(self.out):
            self.format.merge([path.with_suffix(self.out.suffix) for path in self._done], whole)
            sync(whole)
            self.bad_rows.unlink(missing_ok=True)
            if self.report.bad:
                with side.open("w", encoding="utf-8") as file:
                    file.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in self._bad())
                side.replace(self.bad_rows)
            whole.replace(self.out)
            # at once, so that no half of it can be taken for the parts of a run
            self.folder.rename(self._done_with)
            shutil.rmtree(self._done_with)

    def _bad(self) -> Iterator[dict[str, Any]]:
        for path in self._done:
            yield from read_json(path)["bad"]
