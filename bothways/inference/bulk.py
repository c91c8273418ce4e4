"""A model over a table of any size: constant memory, and a run that was killed goes on where it was.

Rows are read, tokenised, run and written in parts that take about `PART_SECONDS`, in the order of the table. The
results of a row do not depend on other rows, so parts may be of any size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from bothways.data.encoded import Encoded
from bothways.data.stream import RowStream
from bothways.data.tables import BadRow, Row
from bothways.data.unknown_tokens import UnknownTokens, count_unknown_in
from bothways.errors import UserError, as_shown
from bothways.files import to_json
from bothways.inference import engine
from bothways.inference.bulk_formats import CsvFormat, JsonLinesFormat, ParquetFormat, RowFormat
from bothways.outputs import option_change, require_apart
from bothways.parts import Parts
from bothways.prefetch import prefetch
from bothways.progress import OnProgress, no_progress
from bothways.remote_files import version_of
from bothways.text.tokenizer import Tokenizer

PART_SECONDS = 20.0  # what a kill costs at most; to write and fsync a part takes hundredths of a second
MIN_PART_ROWS = 256  # enough of them to be sorted by length into full batches
MAX_PART_ROWS = 1 << 15  # two parts' rows and token ids are in memory at a time: the one at work and the next
MAX_PART_CHARACTERS = 1 << 25  # about; 32 MB of text, for tables of long texts


@dataclass(frozen=True)
class Job:
    """What is done with rows.

    description: all that the results depend on, as JSON; a run goes on only with the same. encode: one or more
    sequences a row; raises UserError for rows it cannot read. compute: (rows, encoded, on_progress) → an array of
    results, one a row, for each column of `schema`. tokenizer: what `encode` reads with.
    """

    description: dict[str, Any]
    encode: Callable[[Sequence[Row]], list[Encoded]]
    compute: Callable[[Sequence[Row], list[Encoded], OnProgress], list[pa.Array]]
    schema: pa.Schema
    tokenizer: Tokenizer


@dataclass
class BulkCounts:
    """rows: of the table; bad and truncated: of them; first_bad: a bad row, and why it is one; resumed: those that an
    earlier run had done. unknown: of the other rows what the vocabulary does not have."""

    rows: int = 0
    bad: int = 0
    first_bad: str = ""
    truncated: int = 0
    resumed: int = 0
    unknown: UnknownTokens = field(default_factory=UnknownTokens)


@dataclass(frozen=True)
class _Part:
    """Rows read from the table. size: how many, with the bad ones. columns: the table's own, of the good rows."""

    rows: list[Row]
    encoded: list[Encoded]
    columns: Any
    bad: list[BadRow]
    size: int


class BulkOutput:
    """The file of results, its parts until it is complete, and beside it a file of the rows that could not be used.

    bad_rows: that file, `OUT.bad.jsonl`; there is none where all rows were used.
    """

    def __init__(self, out: Path, row_format: RowFormat, *, overwrite: bool = False) -> None:
        self.row_format, self.counts = row_format, BulkCounts()
        self.bad_rows = out.with_name(f"{out.name}.bad.jsonl")
        self._parts = Parts(out, (self.bad_rows,), overwrite=overwrite)

    def open(self, manifest: Mapping[str, Any]) -> None:
        """Find what an earlier run has done. Raises UserError as `Parts.open` does."""
        self._parts.open(manifest, _changes)
        for marker in self._parts.markers():
            self._count(marker)
        self.counts.rows = self.counts.resumed = self._parts.end

    def write(self, part: _Part, results: pa.Table, unknown: UnknownTokens) -> None:
        """Add a part. results: a row for each of `part.rows`. unknown: what of them the vocabulary does not have."""
        marker = {
            "bad": [{"row": row.source, "reason": row.reason} for row in part.bad],
            "truncated": engine.truncated_rows(part.encoded),
            "unknown": asdict(unknown),
        }
        self._parts.write(part.size, lambda path: self.row_format.write(path, part.columns, results), marker)
        self._count(marker)
        self.counts.rows = self._parts.end

    def _count(self, marker: Mapping[str, Any]) -> None:
        if marker["bad"] and not self.counts.bad:
            self.counts.first_bad = "{row}: {reason}".format_map(marker["bad"][0])
        self.counts.bad += len(marker["bad"])
        self.counts.truncated += marker["truncated"]
        self.counts.unknown += UnknownTokens(**marker.get("unknown", {}))  # parts of an earlier version have none

    def merge(self) -> None:
        """Make the file of all parts, and that of the bad rows."""
        side = {self.bad_rows: self._write_bad_rows} if self.counts.bad else {}
        self._parts.merge(self.row_format.merge, side)

    def _write_bad_rows(self, path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            for marker in self._parts.markers():
                file.writelines(to_json(bad, ensure_ascii=False) + "\n" for bad in marker["bad"])


def open_output(job: Job, source: RowStream, out: Path, *, overwrite: bool = False) -> BulkOutput:
    """The output of a job: empty, or with the parts of a run that was stopped.

    overwrite: begin anew, and replace a complete `out` at the end.
    Raises UserError where `out` is complete, a column of the table has the name of a result's, or the parts are of
    another run.
    """
    if overwrite:
        require_apart(out, [source.path])
    clashes = _result_names(source.columns, job)
    if clashes:
        raise UserError(f"{source.path}: has a column {clashes[0]!r}, which is the name of a result; rename it")
    output = BulkOutput(out, _row_format(out.suffix.lower(), source, job), overwrite=overwrite)
    path = source.path.resolve()
    origin = {"input": as_shown(path), "bytes": path.stat().st_size, "modified": version_of(path)}
    output.open({**origin, **source.reading, **job.description})
    return output


def _row_format(suffix: str, source: RowStream, job: Job) -> RowFormat:
    if suffix == ".jsonl":
        return JsonLinesFormat()
    if suffix == ".csv":
        return CsvFormat(source.columns, job.schema.names)
    return ParquetFormat(source.schema(), job.schema)


def run_bulk(job: Job, source: RowStream, output: BulkOutput, on_rows: OnProgress = no_progress) -> BulkCounts:
    """Do the job on every row that is not done and write the file: the table's own columns, then the results.

    on_rows: called with the number of rows done, those of an earlier run included.
    """
    done = output.counts.rows
    size = _PartSize()
    rows = source.rows(skip=done)
    for part in prefetch(lambda count: _read_part(job, output.row_format, rows, count), size):
        if not part.size:
            break
        began = time.monotonic()
        results = _compute(job, part, done, on_rows)
        output.write(part, results, count_unknown_in(job.tokenizer, part.encoded))
        size.adapt(part.size, time.monotonic() - began)
        done += part.size
        on_rows(done)
    output.merge()
    return output.counts


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What a person did otherwise, by two manifests."""
    changes = []
    if before.get("input") != now["input"]:
        changes.append(option_change("in", before.get("input"), now["input"]))
    elif any(before.get(name) != now[name] for name in ("bytes", "modified")):
        changes.append(f"{now['input']} has changed since")
    if any(before.get(name) != now[name] for name in ("model", "tokenizer")):
        changes.append("the model is another, or has changed since")
    known = {"input", "bytes", "modified", "model", "tokenizer"}
    for name in (*now, *(name for name in before if name not in now)):
        if name not in known and before.get(name) != now.get(name):
            plain = not isinstance(now.get(name), dict)
            changes.append(option_change(name, before.get(name), now.get(name)) if plain else f"the {name} is another")
    return changes


def _result_names(columns: Collection[str], job: Job) -> list[str]:
    """The columns with the name of a result."""
    return [name for name in job.schema.names if name in columns]


class _PartSize:
    """How many rows the next part has, by the time that the last part took."""

    def __init__(self) -> None:
        self._rows = MIN_PART_ROWS

    def __iter__(self) -> Iterator[int]:
        while True:
            yield self._rows

    def adapt(self, rows: int, seconds: float) -> None:
        """Aim at `PART_SECONDS` by the speed of a part."""
        self._rows = min(MAX_PART_ROWS, max(MIN_PART_ROWS, int(rows * PART_SECONDS / max(seconds, 1e-3))))


def _compute(job: Job, part: _Part, done: int, on_rows: OnProgress) -> pa.Table:
    if not part.rows:
        return job.schema.empty_table()
    rows_per_sequence = len(part.rows) / len(part.encoded)  # a row may be several sequences
    columns = job.compute(part.rows, part.encoded, lambda sequences: on_rows(done + int(sequences * rows_per_sequence)))
    return pa.Table.from_arrays(columns, schema=job.schema)


def _read_part(job: Job, row_format: RowFormat, rows: Iterator[Row | BadRow], size: int) -> _Part:
    """The next `size` rows, or as many as have `MAX_PART_CHARACTERS`, encoded; empty at the table's end."""
    good: list[Row] = []
    bad: list[BadRow] = []
    characters = taken = 0
    for row in rows:
        taken += 1
        if isinstance(row, BadRow):
            bad.append(row)
        elif clashes := _result_names(row.values, job):
            bad.append(BadRow(row.source, f"has a column {clashes[0]!r}, which is the name of a result"))
        else:
            good.append(row)
            characters += sum(len(value) for value in row.values.values() if isinstance(value, str | list))
        if taken == size or characters > MAX_PART_CHARACTERS:
            break
    try:
        encoded = job.encode(good) if good else []
    except UserError:
        good, unreadable = _split_by_encoding(job, good)
        bad += unreadable
        encoded = job.encode(good) if good else []
    fitting, columns, misfits = row_format.own_columns(good)
    if misfits:
        encoded = job.encode(fitting) if fitting else []
    return _Part(fitting, encoded, columns, bad + misfits, taken)


def _split_by_encoding(job: Job, rows: Sequence[Row]) -> tuple[list[Row], list[BadRow]]:
    """The rows that can be encoded, and those that cannot, found by encoding each alone."""
    good, bad = [], []
    for row in rows:
        try:
            job.encode([row])
            good.append(row)
        except UserError as error:
            bad.append(BadRow(row.source, str(error).removeprefix(f"{row.source}: ")))
    return good, bad
