"""`bothways embed|classify|tag|answer M --in TABLE --out FILE`: a table of any size."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bothways.data.stream import RowStream
from bothways.data.tables import TableOptions
from bothways.errors import UserError
from bothways.files import require_file_writable
from bothways.inference.bulk import BulkCounts, BulkOutput, Job, open_output, open_table_parts, run_bulk
from bothways.inference.bulk_formats import BULK_SUFFIXES
from bothways.inference.jobs import task_job
from bothways.inference.prepared import describe_layers
from bothways.precision import InferencePrecision
from bothways.predictor import Predictor
from bothways.progress import CountProgress, duration, print_note
from bothways.verbs.model_argument import load_model
from bothways.verbs.parts_arguments import PartsArguments, absolute, make_on_cluster, part_command, say_share
from bothways.verbs.text_arguments import TextArguments

MakeJob = Callable[[Predictor, RowStream], Job]
LineColumn = Callable[[Mapping[str, Any]], str]


def into_file(verb: str, options: Any, arguments: Sequence[str], make_job: MakeJob, line_column: LineColumn) -> None:
    """Run a job over the table `--in` into `--out`, and say what became of its rows.

    options: with model, input, format, encoding, out, overwrite, on, parts, device and precision. arguments: the words
    that gave them. line_column: what the lines of a .txt are called, by the options of the fine-tuning.
    """
    out = Path(options.out)
    require_file_writable(out, BULK_SUFFIXES, "out")
    if options.input is None:
        raise UserError(f"--out {out}: needs a table after --in")
    if options.json:
        raise UserError(f"--json: prints, and --out {out} writes a file; name a .jsonl after --out for JSON")
    share = options.share(options.overwrite)
    model, job, source = _open_job(verb, options, make_job, line_column)
    for remark in source.remarks:
        print_note(f"{source.path}: {remark}")
    output = open_output(job, source, out, overwrite=options.overwrite, command=part_command(verb, arguments))
    began = time.monotonic()
    with CountProgress(verb, output.rows_at_most, output.resumed) as on_rows:
        if options.on is not None:
            _make_on_cluster(verb, options, output, make_job, line_column, on_rows)
        else:
            layers = describe_layers(model.for_prediction, model.precision)
            agreement = f" ({model.agreement})" if model.agreement else ""
            on_rows.say(f"{verb} on {model.device}: {layers}{agreement}")
            numbers = output.parts.missing(share)
            run_bulk(job, source, output, on_rows, numbers)
    if share is not None:
        return say_share(output.parts, share, len(numbers))
    counts = output.merge()
    resumed = f", {counts.resumed:,} of them by an earlier run" if counts.resumed else ""
    print(f"{out}: {counts.rows - counts.bad:,} rows{resumed}, in {duration(time.monotonic() - began)}")
    say_counts(counts, output, model.sequence_length)


def _open_job(verb: str, options: Any, make_job: MakeJob, line_column: LineColumn) -> tuple[Predictor, Job, RowStream]:
    """The model, what it does, and the table."""
    model = load_model(verb, options, options.precision)
    reading = TableOptions(options.format, encoding=options.encoding)
    source = RowStream(Path(options.input), line_column(model.checkpoint.metadata.get("options", {})), reading)
    return model, make_job(model, source), source


def _make_on_cluster(
    verb: str, options: Any, output: BulkOutput, make_job: MakeJob, line_column: LineColumn, on_rows: CountProgress
) -> None:
    """Make the missing parts on the cluster, where each actor opens model and table for itself."""
    elsewhere = replace(options, model=absolute(options.model), input=absolute(options.input))

    def open_job() -> tuple[Job, RowStream]:
        _, job, source = _open_job(verb, elsewhere, make_job, line_column)
        return job, source

    done = output.resumed

    def on_made(number: int, rows: int) -> None:
        nonlocal done
        done += rows
        on_rows(done)

    open_parts = partial(open_table_parts, output.out.absolute(), open_job)
    make_on_cluster(options.on, output.parts, open_parts, "device", on_made)


def say_counts(counts: BulkCounts, output: BulkOutput, sequence_length: int | None = None) -> None:
    """What was cut short, unknown to the vocabulary, or unusable. sequence_length: of the model, if it is known."""
    if counts.truncated:
        longer = f"{sequence_length} tokens" if sequence_length else "the model reads"
        print(f"{counts.truncated:,} rows are longer than {longer} and were cut short")
    if (unknown := counts.unknown.sentence("rows")) is not None:
        print(unknown)
    if counts.bad:
        print(f"{output.bad_rows}: {counts.bad:,} rows that could not be used, with the reason; {counts.first_bad}")


@dataclass(frozen=True)
class TableArguments(PartsArguments, TextArguments):
    """out: a .parquet, .jsonl or .csv of all the rows of `--in`, however many; the same command again goes on with it.
    precision: auto is bfloat16 where the hardware multiplies it, else float32; fastest is int8 where it has VNNI."""

    out: str | None = None
    overwrite: bool = False
    precision: InferencePrecision = "auto"

    def columns(self) -> dict[str, str]:
        """The columns that are named, by the option."""
        named = {"text_column": self.text_column, "pair_column": self.pair_column}
        return {option: column for option, column in named.items() if column is not None}


def table_into_file(verb: str, options: TableArguments, arguments: Sequence[str]) -> None:
    """Run a task's job over the table `--in` into `--out`, as `into_file`. Raises UserError where texts are given."""
    if options.texts:
        raise UserError(f"--out {options.out}: is for the rows of a table after --in, not for texts as arguments")
    into_file(
        verb,
        options,
        arguments,
        lambda model, source: task_job(model, verb, source.columns, options.columns()),
        lambda trained: options.text_column or trained.get("text_column", "text"),
    )
