"""`bothways predict M TABLE`: a prediction for every row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bothways.data.tables import Row, TableFormat, TableOptions, read_rows
from bothways.errors import UserError, as_shown
from bothways.files import require_file_writable, to_json, write_text
from bothways.inference.engine import complete
from bothways.inference.predict import describe_rows
from bothways.mirrors import output_file
from bothways.outputs import require_new_file
from bothways.predictor import load
from bothways.progress import CountProgress
from bothways.tasks.base import Task
from bothways.verbs.column_arguments import column_arguments, named_columns
from bothways.verbs.flags import joined_options, parse
from bothways.verbs.options import Positional
from bothways.verbs.printing import say


@dataclass(frozen=True, kw_only=True)
class PredictArguments:
    """table: rows, which need no labels. out: a .csv for spreadsheets, or .jsonl; without it, JSON lines are
    printed. format: what the table is, where its name does not say it. encoding: of a table that is not UTF-8."""

    model: Positional[str]
    table: Positional[str]
    out: str | None = None
    overwrite: bool = False
    format: TableFormat | None = None
    encoding: str = "utf-8"
    device: str = "auto"


def run_predict(arguments: Sequence[str]) -> None:
    """`bothways predict M F`."""
    options = parse(
        "predict",
        joined_options("PredictArguments", PredictArguments, column_arguments()),
        arguments,
        "Predict every row of a table. Example: bothways predict tickets new.csv --out predictions.csv",
    )
    if options.out is None:
        return _predict(options, None)
    with output_file(options.out, overwrite=options.overwrite) as out:
        _predict(options, out)


def _predict(options: Any, out: Path | None) -> None:
    """Print the predictions, or write them into `out`."""
    from bothways.train.evaluate import write_predictions

    if out is not None:
        require_file_writable(out, (".csv", ".jsonl"), "out")
        if out.exists() and Path(options.table).exists() and out.samefile(options.table):
            raise UserError(f"--out {out}: is the table itself")
        if not options.overwrite:
            require_new_file(out, "out")
    model = load(options.model, options.device)
    task = model.task(columns=named_columns(options))
    rows = read_rows(options.table, task.columns(labelled=False), TableOptions(options.format, say, options.encoding))
    with CountProgress("predict") as on_sequences:
        described = complete(describe_rows(model, rows, task, on_sequences))
    table = [{**_other_columns(task, row), **line} for line, row in zip(described, rows, strict=True)]
    lines = "".join(to_json(line, ensure_ascii=False) + "\n" for line in table)
    if out is None:
        print(lines, end="")
    elif out.suffix.lower() == ".csv":
        write_predictions(out, table)
    else:
        write_text(out, lines)
    if out is not None:
        print(f"{as_shown(out)}: {len(rows):,} predictions")


def _other_columns(task: Task, row: Row) -> dict[str, Any]:
    """The columns of a row that the task does not read, an id say, where they fit a cell."""
    read = task.columns(labelled=True)
    return {
        name: value for name, value in row.values.items() if name not in read and isinstance(value, str | int | float)
    }
