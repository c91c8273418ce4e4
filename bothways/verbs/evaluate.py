"""`bothways evaluate M TABLE`: a model measured on labelled rows, or on held-out text."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from bothways.data.tables import TableFormat, TableOptions, read_table
from bothways.files import require_file_writable, to_json
from bothways.predictor import Predictor, load
from bothways.progress import CountProgress
from bothways.verbs.column_arguments import column_arguments, with_named_columns
from bothways.verbs.flags import joined_options, parse
from bothways.verbs.printing import figure_lines, say


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
    if options.predictions is not None:
        require_file_writable(Path(options.predictions), (".csv",), "--predictions")
    model = load(options.model, options.device)
    pretrained = "language-model" in model.model.head.abilities and "task" not in model.checkpoint.metadata
    figures = _of_text(model, options) if pretrained else _of_rows(model, options)
    print(to_json(figures) if options.json else "\n".join(figure_lines(figures)))


def _of_rows(model: Predictor, options: EvaluateArguments) -> dict[str, Any]:
    from bothways.train.evaluate import columns_of, evaluate_rows, usable_rows, write_predictions

    task = with_named_columns(model.task(), options)
    found = read_table(options.table, TableOptions(options.format, say, options.encoding))
    task = task.for_columns(columns_of(found))
    rows, _ = usable_rows(task, found, options.skip_bad, say)
    encoded = task.encode(rows, model.tokenizer, model.sequence_length)
    counting = CountProgress("evaluate", len(encoded))
    evaluation = evaluate_rows(model.model, task, rows, encoded, on_progress=counting)
    truncated = len({sequence.row for sequence in encoded if sequence.truncated})
    if truncated:
        say(f"{truncated:,} rows are longer than {model.sequence_length} tokens and were cut short")
    if options.predictions:
        write_predictions(Path(options.predictions), evaluation.table())
        say(f"{options.predictions}: {len(rows):,} predictions")
    return evaluation.metrics


def _of_text(model: Predictor, options: EvaluateArguments) -> dict[str, Any]:
    """The figures of a pretrained model's own objective: on a store's held-out part, or on all of a text."""
    source = options.table
    from bothways.data.prepare import PrepareOptions, prepare
    from bothways.data.store import TokenStore
    from bothways.text.corpus import CorpusOptions
    from bothways.train.pretrain import evaluate_store

    if (Path(source) / "manifest.json").exists():
        return evaluate_store(model.checkpoint, TokenStore(Path(source)), "validation", str(model.device))
    with tempfile.TemporaryDirectory() as folder:
        corpus = CorpusOptions(skip_bad=options.skip_bad, encoding=options.encoding)
        store = prepare([source], model.tokenizer, Path(folder) / "store", PrepareOptions(corpus, validation=0))
        return evaluate_store(model.checkpoint, store, "train", str(model.device))
