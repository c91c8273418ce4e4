"""`bothways embed|classify|tag|answer M --in TABLE --out FILE`: a table of any size."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bothways.data.stream import RowStream
from bothways.data.tables import TableOptions
from bothways.errors import UserError, as_shown
from bothways.files import require_file_writable
from bothways.inference.bulk import Job, open_output, run_bulk
from bothways.inference.bulk_formats import BULK_SUFFIXES
from bothways.inference.jobs import task_job
from bothways.inference.prepared import describe_layers
from bothways.mirrors import output_file
from bothways.precision import InferencePrecision
from bothways.predictor import Predictor
from bothways.progress import CountProgress, duration, print_note
from bothways.verbs.model_argument import load_model
from bothways.verbs.text_arguments import TextArguments

MakeJob = Callable[[Predictor, RowStream], Job]


def into_file(verb: str, options: Any, make_job: MakeJob, line_column: Callable[[Mapping[str, Any]], str]) -> None:
    """Run a job over the table `--in` into `--out`, and say what became of its rows.

    options: with model, input, format, encoding, out, overwrite, device, precision and calibrate. line_column: what
    the lines of a .txt are called, by the options of the fine-tuning.
    """
    with output_file(options.out, overwrite=options.overwrite) as out:
        _into(out, verb, options, make_job, line_column)


def _into(
    out: Path, verb: str, options: Any, make_job: MakeJob, line_column: Callable[[Mapping[str, Any]], str]
) -> None:
    require_file_writable(out, BULK_SUFFIXES, "out")
    if options.input is None:
        raise UserError(f"--out {out}: needs a table after --in")
    if options.json:
        raise UserError(f"--json: prints, and --out {out} writes a file; name a .jsonl after --out for JSON")
    model = load_model(verb, options, options.precision, options.calibrate)
    reading = TableOptions(options.format, encoding=options.encoding)
    source = RowStream(options.input, line_column(model.checkpoint.metadata.get("options", {})), reading)
    for remark in source.remarks:
        print_note(f"{source.path}: {remark}")
    job = make_job(model, source)
    output = open_output(job, source, out, overwrite=options.overwrite)
    layers = describe_layers(model.for_prediction, model.precision)
    measured = f" ({model.agreement})" if model.agreement and not options.calibrate else ""
    print_note(f"{verb} on {model.device}: {layers}{measured}")
    began = time.monotonic()
    with CountProgress(verb, source.count(), output.counts.resumed) as on_rows:
        counts = run_bulk(job, source, output, on_rows)
    resumed = f", {counts.resumed:,} of them by an earlier run" if counts.resumed else ""
    print(f"{as_shown(out)}: {counts.rows - counts.bad:,} rows{resumed}, in {duration(time.monotonic() - began)}")
    if counts.truncated:
        print(f"{counts.truncated:,} rows are longer than {model.sequence_length} tokens and were cut short")
    if (unknown := counts.unknown.sentence("rows")) is not None:
        print(unknown)
    if counts.bad:
        bad = f"{as_shown(output.bad_rows)}: {counts.bad:,} rows that could not be used"
        print(f"{bad}, with the reason; {counts.first_bad}")


@dataclass(frozen=True)
class TableArguments(TextArguments):
    """out: a .parquet, .jsonl or .csv of all the rows of `--in`, however many; the same command again goes on with it.
    precision: auto is bfloat16 where the hardware multiplies it, else float32; fastest is int8 where it has VNNI.
    calibrate: a table or a .txt of texts, on which int8 is compared with float32 before it is used."""

    out: str | None = None
    overwrite: bool = False
    precision: InferencePrecision = "auto"
    calibrate: str | None = None

    def columns(self) -> dict[str, str]:
        """The columns that are named, by the option."""
        named = {"text_column": self.text_column, "pair_column": self.pair_column}
        return {option: column for option, column in named.items() if column is not None}


def table_into_file(verb: str, options: TableArguments) -> None:
    """Run a task's job over the table `--in` into `--out`, as `into_file`. Raises UserError where texts are given."""
    if options.texts:
        raise UserError(f"--out {options.out}: is for the rows of a table after --in, not for texts as arguments")
    into_file(
        verb,
        options,
        lambda model, source: task_job(model, verb, source.columns, options.columns()),
        lambda trained: options.text_column or trained.get("text_column", "text"),
    )
