"""`bothways embed|classify|tag|answer M --in TABLE --out FILE`: a table of any size."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bothways.data.stream import RowStream
from bothways.data.tables import TableOptions
from bothways.errors import UserError, as_shown
from bothways.files import require_file_writable
from bothways.inference.bulk_formats import BULK_SUFFIXES
from bothways.mirrors import new_output_file, output_file
from bothways.parts import PartShare
from bothways.precision import InferencePrecision
from bothways.progress import CountProgress, duration, print_note
from bothways.verbs.model_argument import load_model
from bothways.verbs.parts_arguments import PartsArguments, absolute, make_on_cluster, part_command, say_share
from bothways.verbs.text_arguments import TextArguments

if TYPE_CHECKING:  # torch takes seconds, and --help needs none
    from bothways.inference.bulk import BulkCounts, BulkOutput, Job
    from bothways.predictor import Predictor

MakeJob = Callable[["Predictor", RowStream], "Job"]
LineColumn = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True)
class _Asked:
    """What a verb is asked to do with a table; as `into_file` has it. parts_url: as `PartsArguments.parts_url`."""

    verb: str
    options: Any
    make_job: MakeJob
    line_column: LineColumn
    parts_url: str | None

    def open(self) -> tuple[Predictor, Job, RowStream]:
        """The model, what it does, and the table."""
        options = self.options
        model = load_model(self.verb, options, options.precision, options.calibrate)
        reading = TableOptions(options.format, encoding=options.encoding)
        source = RowStream(options.input, self.line_column(model.checkpoint.metadata.get("options", {})), reading)
        return model, self.make_job(model, source), source


def into_file(verb: str, options: Any, arguments: Sequence[str], make_job: MakeJob, line_column: LineColumn) -> None:
    """Run a job over the table `--in` into `--out`, and say what became of its rows.

    options: with model, input, format, encoding, out, overwrite, on, parts, device, precision and calibrate. arguments:
    the words that gave them. line_column: what the lines of a .txt are called, by the options of the fine-tuning.
    """
    from bothways.inference.bulk import BAD_ROWS

    share = options.share(options.overwrite)
    parts_url = options.parts_url(options.out)
    asked, command = _Asked(verb, options, make_job, line_column, parts_url), part_command(verb, arguments)
    if share is not None:
        _into(new_output_file(options.out, overwrite=options.overwrite), asked, share, command)
        return
    with output_file(options.out, overwrite=options.overwrite, side_suffixes=(BAD_ROWS,)) as out:
        output = _into(out, asked, None, command)
    if parts_url is not None:
        output.parts.remove()


def _into(out: Path, asked: _Asked, share: PartShare | None, command: Sequence[str]) -> BulkOutput:
    from bothways.inference.bulk import open_output, run_bulk
    from bothways.inference.prepared import describe_layers

    options = asked.options
    require_file_writable(out, BULK_SUFFIXES, "out")
    if options.input is None:
        raise UserError(f"--out {out}: needs a table after --in")
    if options.json:
        raise UserError(f"--json: prints, and --out {out} writes a file; name a .jsonl after --out for JSON")
    model, job, source = asked.open()
    for remark in source.remarks:
        print_note(f"{source.path}: {remark}")
    output = open_output(job, source, out, overwrite=options.overwrite, command=command, url=asked.parts_url)
    began = time.monotonic()
    numbers = output.parts.missing(share)
    with CountProgress(asked.verb, output.rows_at_most, output.resumed) as on_rows:
        if options.on is not None:
            _make_on_cluster(asked, output, on_rows)
        else:
            layers = describe_layers(model.for_prediction, model.precision)
            measured = f" ({model.agreement})" if model.agreement and not options.calibrate else ""
            on_rows.say(f"{asked.verb} on {model.device}: {layers}{measured}")
            run_bulk(job, source, output, on_rows, numbers)
    if share is not None:
        say_share(output.parts, share, len(numbers))
        return output
    counts = output.merge()
    resumed = f", {counts.resumed:,} of them by an earlier run" if counts.resumed else ""
    print(f"{as_shown(out)}: {counts.rows - counts.bad:,} rows{resumed}, in {duration(time.monotonic() - began)}")
    say_counts(counts, output, model.sequence_length)
    return output


def _make_on_cluster(asked: _Asked, output: BulkOutput, on_rows: CountProgress) -> None:
    """Make the missing parts on the cluster, where each actor opens model and table for itself."""
    from bothways.inference.bulk import open_table_parts

    options = asked.options
    named = {name: absolute(getattr(options, name)) for name in ("model", "input", "calibrate")}
    elsewhere = replace(asked, options=replace(options, **named))

    def open_job() -> tuple[Job, RowStream]:
        _, job, source = elsewhere.open()
        return job, source

    done = output.resumed

    def on_made(number: int, rows: int) -> None:
        nonlocal done
        done += rows
        on_rows(done)

    open_parts = partial(open_table_parts, output.out.absolute(), open_job, asked.parts_url)
    make_on_cluster(options.on, output.parts, open_parts, "device", on_made)


def say_counts(counts: BulkCounts, output: BulkOutput, sequence_length: int | None = None) -> None:
    """What was cut short, unknown to the vocabulary, or unusable. sequence_length: of the model, if it is known."""
    if counts.truncated:
        longer = f"{sequence_length} tokens" if sequence_length else "the model reads"
        print(f"{counts.truncated:,} rows are longer than {longer} and were cut short")
    if (unknown := counts.unknown.sentence("rows")) is not None:
        print(unknown)
    if counts.bad:
        bad = f"{as_shown(output.bad_rows)}: {counts.bad:,} rows that could not be used"
        print(f"{bad}, with the reason; {counts.first_bad}")


@dataclass(frozen=True)
class TableArguments(PartsArguments, TextArguments):
    """out: a .parquet, .jsonl or .csv of all the rows of `--in`, however many; the same command again goes on with it.
    precision: auto is bfloat16 where the hardware multiplies it, else float32; fastest is int8 where it has VNNI."""

    out: str | None = None
    overwrite: bool = False
    precision: InferencePrecision = "auto"
    calibrate: str | None = None

    def columns(self) -> dict[str, str]:
        """The columns that are named, by the option."""
        named = {"text_column": self.text_column, "pair_column": self.pair_column}
        return {option: column for option, column in named.items() if column is not None}


def table_into_file(verb: str, options: TableArguments, arguments: Sequence[str]) -> None:
    """Run a task's job over the table `--in` into `--out`, as `into_file`. Raises UserError where texts are given."""
    from bothways.inference.jobs import task_job

    if options.texts:
        raise UserError(f"--out {options.out}: is for the rows of a table after --in, not for texts as arguments")
    into_file(
        verb,
        options,
        arguments,
        lambda model, source: task_job(model, verb, source.columns, options.columns()),
        lambda trained: options.text_column or trained.get("text_column", "text"),
    )
