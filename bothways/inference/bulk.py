"""A model over a table of any size: constant memory, and a run that was killed goes on where it was.

The table is cut into parts by its bytes or rows before work begins; the rows of a part are read, tokenised, run and
written, in the order of the table. The results of a row do not depend on other rows but in the last digits, and what is
in a part depends on the table alone, so the file is the same whoever makes which part.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable, Collection, Mapping, Sequence
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
from bothways.inference.earlier_parts import is_earlier, take_over
from bothways.outputs import made_otherwise, option_change, require_apart
from bothways.parts import Parts
from bothways.prefetch import prefetch
from bothways.progress import OnProgress, no_progress
from bothways.remote_files import version_of
from bothways.shared_parts import SharedParts
from bothways.text.csv_records import CsvDialect
from bothways.text.extents import Extent, ExtentSize
from bothways.text.tokenizer import Tokenizer

# A part is what a kill costs, so small tables have small ones; a large table has hundreds, each of at most 4 MB.
LEAST_PART_BYTES, MOST_PART_BYTES = 1 << 17, 1 << 22
PARTS = 512
MIN_PART_ROWS = 256  # enough of them to be sorted by length into full batches
MAX_PART_ROWS = 1 << 15  # two parts' rows and token ids are in memory at a time: the one at work and the next
BAD_ROWS = ".bad.jsonl"  # behind the name of the results, that of the file of rows that could not be used


def part_size(table_bytes: int) -> ExtentSize:
    """How large the parts of a table of so many bytes are."""
    size = min(MOST_PART_BYTES, max(LEAST_PART_BYTES, table_bytes // PARTS))
    return ExtentSize(size, MIN_PART_ROWS, MAX_PART_ROWS, MOST_PART_BYTES)


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

    number: int
    rows: list[Row]
    encoded: list[Encoded]
    columns: Any
    bad: list[BadRow]
    size: int


class BulkOutput:
    """The file of results, its parts until it is complete, and beside it a file of the rows that could not be used.

    bad_rows: that file, `OUT.bad.jsonl`; there is none where all rows were used. resumed: rows that an earlier run had
    done. url: of the results, where their parts are behind that as well (`SharedParts`).
    """

    def __init__(self, out: Path, *, overwrite: bool = False, url: str | None = None) -> None:
        self.out = out
        self.bad_rows = out.with_name(f"{out.name}{BAD_ROWS}")
        side = (self.bad_rows,)
        if url is None:
            self.parts = Parts(out, side, overwrite=overwrite)
        else:
            self.parts = SharedParts(url, out, side, overwrite=overwrite)
        self.resumed = 0

    @classmethod
    def load(cls, out: Path, url: str | None = None) -> BulkOutput:
        """The output of a job that another process has begun. Raises UserError where there is none."""
        output = cls(out, url=url)
        output.parts.load()
        return output

    def open(self, job: Mapping[str, Any], cut: Callable[[], Mapping[str, Any]]) -> None:
        """Find what an earlier run has done. Raises UserError as `Parts.open` does."""
        self.parts.open(job, cut, _changes)
        self.resumed = sum(marker["rows"] for marker in self.parts.markers())

    @functools.cached_property
    def row_format(self) -> RowFormat:
        """How the file is written, by what the manifest has of the columns."""
        columns = self.parts.manifest["columns"]
        own, results = (pa.ipc.read_schema(pa.py_buffer(base64.b64decode(columns[key]))) for key in ("own", "results"))
        suffix = self.out.suffix.lower()
        if suffix == ".jsonl":
            return JsonLinesFormat()
        return CsvFormat(columns["names"], results.names) if suffix == ".csv" else ParquetFormat(own, results)

    @property
    def rows_at_most(self) -> int | None:
        """How many rows the table has, blank lines of it included; None where that is not known."""
        rows = [entry.get("rows", 0) for entry in self.parts.manifest["parts"]]
        return sum(rows) if all(rows) else None

    def extent(self, number: int) -> tuple[Extent, CsvDialect | None]:
        """What of the table a part reads, and how."""
        dialect = self.parts.manifest.get("dialect")
        return Extent.from_json(self.parts.manifest["parts"][number - 1]), dialect and CsvDialect(**dialect)

    def write(self, part: _Part, results: pa.Table, unknown: UnknownTokens) -> None:
        """Add a part. results: a row for each of `part.rows`. unknown: what of them the vocabulary does not have."""
        row_format = self.row_format

        def write(path: Path) -> dict[str, Any]:
            row_format.write(path, part.columns, results)
            return {
                "rows": part.size,
                "bad": [{"row": row.source, "reason": row.reason} for row in part.bad],
                "truncated": engine.truncated_rows(part.encoded),
                "unknown": asdict(unknown),
            }

        self.parts.write(part.number, write)

    def counts(self) -> BulkCounts:
        """What the parts that are complete have counted."""
        counts = BulkCounts(resumed=self.resumed)
        for marker in self.parts.markers():
            if marker["bad"] and not counts.bad:
                counts.first_bad = "{row}: {reason}".format_map(marker["bad"][0])
            counts.rows += marker["rows"]
            counts.bad += len(marker["bad"])
            counts.truncated += marker["truncated"]
            counts.unknown += UnknownTokens(**marker["unknown"])
        return counts

    def merge(self) -> BulkCounts:
        """Make the file of all parts, and that of the bad rows. Raises UserError where a part is missing."""
        counts = self.counts()
        side = {self.bad_rows: self._write_bad_rows} if counts.bad else {}
        self.parts.merge(self.row_format.merge, side)
        return counts

    def _write_bad_rows(self, path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            for marker in self.parts.markers():
                file.writelines(to_json(bad, ensure_ascii=False) + "\n" for bad in marker["bad"])


def open_output(
    job: Job,
    source: RowStream,
    out: Path,
    *,
    overwrite: bool = False,
    command: Sequence[str] = (),
    url: str | None = None,
) -> BulkOutput:
    """The output of a job: empty, or with the parts of a run that was stopped.

    overwrite: begin anew, and replace a complete `out` at the end. command: by which a person makes the parts. url: as
    of `BulkOutput`.
    Raises UserError where `out` is complete, a column of the table has the name of a result's, or the parts are of
    another run.
    """
    if overwrite:
        require_apart(out, [source.path])
    clashes = _result_names(source.columns, job)
    if clashes:
        raise UserError(f"{source.path}: has a column {clashes[0]!r}, which is the name of a result; rename it")
    output = BulkOutput(out, overwrite=overwrite, url=url)
    size = part_size(source.path.stat().st_size)
    if not overwrite and is_earlier(output.parts.folder):
        take_over(
            output.parts.folder, lambda done: _manifest(job, source, (source.cut_behind(done, size), None), command)
        )
    output.open(
        {**_origin(source), **source.reading, **job.description},
        lambda: _manifest(job, source, source.cut(size), command),
    )
    return output


def _origin(source: RowStream) -> dict[str, Any]:
    """The table of a job, and what tells it from another one under its name."""
    path = source.path.resolve()
    return {"input": as_shown(path), "bytes": path.stat().st_size, "modified": version_of(path)}


def _manifest(
    job: Job, source: RowStream, cut: tuple[Sequence[Extent], CsvDialect | None], command: Sequence[str]
) -> dict[str, Any]:
    """The manifest's content beside the job. cut: the extents of the table, and how they are read."""
    extents, dialect = cut
    own, results = (base64.b64encode(schema.serialize()).decode() for schema in (source.schema(), job.schema))
    return {
        "kind": "table",
        "command": list(command),
        "columns": {"names": source.columns, "own": own, "results": results},
        "dialect": None if dialect is None else asdict(dialect),
        "parts": [extent.to_json() for extent in extents],
    }


def run_bulk(
    job: Job,
    source: RowStream,
    output: BulkOutput,
    on_rows: OnProgress = no_progress,
    numbers: Sequence[int] | None = None,
) -> None:
    """Do the job on every row that is not done: the table's own columns, then the results.

    on_rows: called with the number of rows done, those of an earlier run included. numbers: of the parts to make; None:
    all that are missing.
    """
    numbers = output.parts.missing() if numbers is None else numbers
    done = output.resumed
    for part in prefetch(lambda number: _read_part(job, source, output, number), numbers):
        results = _compute(job, part, done, on_rows)
        output.write(part, results, count_unknown_in(job.tokenizer, part.encoded))
        done += part.size
        on_rows(done)


def open_table_parts(
    out: Path, open_job: Callable[[], tuple[Job, RowStream]], url: str | None = None
) -> Callable[[int], int]:
    """What makes a part of a table's results by its number in this process, and returns how many rows it has.

    open_job: the job and its table, as this machine has them. url: as of `BulkOutput`. Raises UserError where they are
    not those of the parts.
    """
    output = BulkOutput.load(out, url)
    job, source = open_job()
    begun: dict[str, Any] = output.parts.manifest["job"]
    asked = {**_origin(source), **source.reading, **json.loads(json.dumps(job.description))}
    if changes := _changes(begun, asked):
        raise made_otherwise(output.parts.folder, "the beginning of a result", changes)

    def make(number: int) -> int:
        run_bulk(job, source, output, numbers=[number])
        rows: int = output.parts.marker(number)["rows"]
        return rows

    return make


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


def _compute(job: Job, part: _Part, done: int, on_rows: OnProgress) -> pa.Table:
    if not part.rows:
        return job.schema.empty_table()
    rows_per_sequence = len(part.rows) / len(part.encoded)  # a row may be several sequences
    columns = job.compute(part.rows, part.encoded, lambda sequences: on_rows(done + int(sequences * rows_per_sequence)))
    return pa.Table.from_arrays(columns, schema=job.schema)


def _read_part(job: Job, source: RowStream, output: BulkOutput, number: int) -> _Part:
    """The rows of a part, encoded."""
    good: list[Row] = []
    bad: list[BadRow] = []
    for row in source.rows_of(*output.extent(number)):
        if isinstance(row, BadRow):
            bad.append(row)
        elif clashes := _result_names(row.values, job):
            bad.append(BadRow(row.source, f"has a column {clashes[0]!r}, which is the name of a result"))
        else:
            good.append(row)
    taken = len(good) + len(bad)
    try:
        encoded = job.encode(good) if good else []
    except UserError:
        good, unreadable = _split_by_encoding(job, good)
        bad += unreadable
        encoded = job.encode(good) if good else []
    fitting, columns, misfits = output.row_format.own_columns(good)
    if misfits:
        encoded = job.encode(fitting) if fitting else []
    return _Part(number, fitting, encoded, columns, bad + misfits, taken)


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
