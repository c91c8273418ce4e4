"""A model over a table of any size: constant memory, and a run that was killed goes on where it was.

Rows are read, tokenised, run and written in parts that take about `PART_SECONDS`, in the order of the table. What a row
is given does not depend on the others, so parts may be of any size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from bothways.data.encoded import Encoded
from bothways.data.stream import BadRow, RowStream
from bothways.data.tables import Row
from bothways.errors import UserError
from bothways.inference import engine
from bothways.inference.parts import JsonLines, Parquet, Parts, Report
from bothways.prefetch import prefetch
from bothways.progress import OnProgress

PART_SECONDS = 20.0
FEWEST, MOST = 256, 1 << 15  # rows of a part
CHARACTERS = 1 << 25  # of a part's texts, about
FORMATS = (".parquet", ".jsonl")


@dataclass(frozen=True)
class Job:
    """What is done with rows. description: all that its results depend on; a run goes on only with the same.

    encode: raises UserError for rows it cannot read. answer: (rows, encoded, progress) → a column of results for each
    name in `schema`.
    """

    description: dict[str, Any]
    encode: Callable[[Sequence[Row]], list[Encoded]]
    answer: Callable[[Sequence[Row], list[Encoded], OnProgress], list[pa.Array]]
    schema: pa.Schema


@dataclass(frozen=True)
class _Window:
    """Rows of a part; `size` of them with the bad ones. columns: what is carried through."""

    rows: list[Row]
    encoded: list[Encoded]
    columns: Any
    bad: list[BadRow]
    size: int


def open_parts(job: Job, source: RowStream, out: Path) -> Parts:
    """What there is of `out` already, nothing or the parts of a run that was stopped.

    Raises UserError where `out` is complete, or a column of the table has the name of a result's, or the parts are of
    another run.
    """
    twice = _results_in(source.columns, job)
    if twice:
        raise UserError(f"{source.path}: has a column {twice[0]!r}, which is the name of a result; rename it")
    table = JsonLines() if out.suffix == ".jsonl" else Parquet(source.schema(), job.schema)
    parts = Parts(out, table)
    about = source.path.stat()
    origin = {"input": str(source.path.resolve()), "bytes": about.st_size, "modified": about.st_mtime_ns}
    parts.open({**origin, **job.description})
    return parts


def run_bulk(job: Job, source: RowStream, parts: Parts, on_rows: Callable[[int], None] = lambda rows: None) -> Report:
    """Do the job on every row that is not done and write the file: the table's own columns, and those of the job.

    on_rows: called with how many rows are done, those of an earlier run included.
    """
    done = parts.report.rows
    sizes = _Sizes()
    rows = source.rows(skip=done)
    for window in prefetch(lambda size: _read(job, parts, rows, size), iter(sizes)):
        if not window.size:
            break
        began = time.monotonic()
        results = _answered(job, window, done, on_rows)
        parts.write(window.size, window.columns, results, window.bad, engine.truncated_rows(window.encoded))
        sizes.took(window.size, time.monotonic() - began)
        done += window.size
        on_rows(done)
    parts.merge()
    return parts.report


def _results_in(columns: Collection[str], job: Job) -> list[str]:
    return [name for name in job.schema.names if name in columns]


class _Sizes:
    """How many rows the next part has, by how long the last one took."""

    def __init__(self) -> None:
        self._size = FEWEST

    def __iter__(self) -> Iterator[int]:
        while True:
            yield self._size

    def took(self, rows: int, seconds: float) -> None:
        self._size = min(MOST, max(FEWEST, int(rows * PART_SECONDS / max(seconds, 1e-3))))


def _answered(job: Job, window: _Window, done: int, on_rows: Callable[[int], None]) -> pa.Table:
    if not window.rows:
        return job.schema.empty_table()
    share = len(window.rows) / len(window.encoded)  # a row may be several sequences
    columns = job.answer(window.rows, window.encoded, lambda sequences: on_rows(done + int(sequences * share)))
    return pa.Table.from_arrays(columns, schema=job.schema)


def _read(job: Job, parts: Parts, rows: Iterator[Row | BadRow], size: int) -> _Window:
    good: list[Row] = []
    bad: list[BadRow] = []
    characters = taken = 0
    for row in rows:
        taken += 1
        if isinstance(row, BadRow):
            bad.append(row)
        elif twice := _results_in(row.values, job):
            bad.append(BadRow(row.source, f"has a column {twice[0]!r}, which is the name of a result"))
        else:
            good.append(row)
            characters += sum(len(value) for value in row.values.values() if isinstance(value, str | list))
        if taken == size or characters > CHARACTERS:
            break
    try:
        encoded = job.encode(good) if good else []
    except UserError:
        good, unreadable = _readable(job, good)
        bad += unreadable
        encoded = job.encode(good) if good else []
    fitting, columns, unfit = parts.format.carried(good)
    if unfit:
        encoded = job.encode(fitting) if fitting else []
    return _Window(fitting, encoded, columns, bad + unfit, taken)


def _readable(job: Job, rows: Sequence[Row]) -> tuple[list[Row], list[BadRow]]:
    """Row by row, which of them can be encoded."""
    good, bad = [], []
    for row in rows:
        try:
            job.encode([row])
            good.append(row)
        except UserError as error:
            bad.append(BadRow(row.source, str(error).removeprefix(f"{row.source}: ")))
    return good, bad
