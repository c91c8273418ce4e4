"""`bothways evaluate M TABLE`: a model measured on labelled rows, or on held-out text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bothways.data.tables import TableFormat
from bothways.evaluation import evaluate
from bothways.files import to_json
from bothways.progress import is_main_process
from bothways.verbs.column_arguments import column_arguments, named_columns
from bothways.verbs.flags import joined_options, parse
from bothways.verbs.options import Positional
from bothways.verbs.printing import figure_lines


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """table: labelled rows; or, for a pretrained model, a store or text, on which it does what it was pretrained for.

    predictions: write what was predicted of each row to this .csv. skip_bad: leave out rows that cannot be used,
    and count them. format: what the table is, where its name does not say it. encoding: of a table or text that is not
    UTF-8.
    """

    model: Positional[str]
    table: Positional[str]
    predictions: str | None = None
    overwrite: bool = False
    skip_bad: bool = False
    format: TableFormat | None = None
    encoding: str = "utf-8"
    json: bool = False
    device: str = "auto"


def run_evaluate(arguments: Sequence[str]) -> None:
    """`bothways evaluate M F`."""
    options = parse(
        "evaluate",
        joined_options("EvaluateArguments", EvaluateArguments, column_arguments()),
        arguments,
        "Measure a model on labelled rows. Example: bothways evaluate tickets test.csv",
    )
    figures = evaluate(
        options.model,
        options.table,
        predictions=options.predictions,
        overwrite=options.overwrite,
        skip_bad=options.skip_bad,
        format=options.format,
        encoding=options.encoding,
        device=options.device,
        **named_columns(options),
    )
    if is_main_process():
        print(to_json(figures) if options.json else "\n".join(figure_lines(figures)))
