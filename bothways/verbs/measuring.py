"""`bothways evaluate` and `bothways predict`: a model on a table of rows, or on held-out text."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from bothways.data.tables import SUFFIXES, Row, read_rows
from bothways.errors import UserError
from bothways.files import require_file_writable, write_text
from bothways.inference.predictor import Predictor, load
from bothways.model.heads import CausalLMHead, MaskedLMHead, PretrainingHead
from bothways.recipes import parse
from bothways.tasks.base import Task
from bothways.verbs.counting import Counting


@dataclass(frozen=True, kw_only=True)
class ColumnArguments:
    """Columns are those of the fine-tuning unless named here."""

    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    question_column: str | None = None
    context_column: str | None = None
    answers_column: str | None = None
    start_column: str | None = None
    words_column: str | None = None
    labels_column: str | None = None
    spans_column: str | None = None
    choices_column: str | None = None
    score_column: str | None = None
    messages_column: str | None = None
    prompt_column: str | None = None
    response_column: str | None = None

    def applied(self, task: Task) -> Task:
        """The task with these columns. Raises UserError for one that it does not have."""
        given = {field.name: getattr(self, field.name) for field in fields(ColumnArguments)}
        named = {name: value for name, value in given.items() if value is not None}
        options: Any = getattr(task, "options")  # noqa: B009
        for name in named:
            if not hasattr(options, name):
                raise UserError(f"--{name.replace('_', '-')}: {task.name} has no such column")
        changed: Any = task
        return replace(changed, options=replace(options, **named))


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments(ColumnArguments):
    """table: labelled rows; or, for a pretrained model, a store or text, on which it does what it was pretrained for.

    predictions: write what was predicted of each row to this .csv. skip_bad: leave out rows that cannot be used.
    """

    model: Positional[str]
    table: Positional[str]
    predictions: str | None = None
    skip_bad: bool = False
    json: bool = False
    device: str = "auto"


def evaluate(arguments: Sequence[str]) -> None:
    """`bothways evaluate M F`."""
    options = parse(
        "evaluate",
        EvaluateArguments,
        arguments,
        "Measure a model on labelled rows. Example: bothways evaluate tickets test.csv",
    )
    if options.predictions is not None:
        require_file_writable(Path(options.predictions), (".csv",), "--predictions")
    model = load(options.model, options.device)
    pretrained = (
        isinstance(model.model.head, PretrainingHead | MaskedLMHead | CausalLMHead)
        and "task" not in model.checkpoint.state
    )
    figures = _of_text(model, options.table) if pretrained else _of_rows(model, options)
    print(json.dumps(figures) if options.json else "\n".join(figure_lines(figures)))


def _of_rows(model: Predictor, options: EvaluateArguments) -> dict[str, Any]:
    from bothways.train.evaluate import columns_of, evaluate_rows, usable_rows, write_predictions

    task = options.applied(model.task())
    rows = read_rows(options.table)
    task = task.suited(columns_of(rows))
    rows, _ = usable_rows(task, rows, options.skip_bad, say)
    encoded = task.encode(rows, model.tokenizer, model.sequence_length)
    counting = Counting("evaluate", len(encoded))
    evaluation = evaluate_rows(model.model, task, rows, encoded, on_progress=counting)
    truncated = len({one.row for one in encoded if one.truncated})
    if truncated:
        say(f"{truncated:,} rows are longer than {model.sequence_length} tokens and were cut short")
    if options.predictions:
        write_predictions(Path(options.predictions), evaluation.table())
        say(f"{options.predictions}: {len(rows):,} predictions")
    return evaluation.metrics


def _of_text(model: Predictor, source: str) -> dict[str, Any]:
    """Masked-LM loss, perplexity and accuracy, and next sentence's: on a store's held-out part, or on all of a text."""
    from bothways.data.prepare import prepare
    from bothways.data.store import TokenStore
    from bothways.train.pretrain import evaluate_store

    if (Path(source) / "manifest.json").exists():
        return evaluate_store(model.checkpoint, TokenStore(Path(source)), "validation", str(model.device))
    with tempfile.TemporaryDirectory() as folder:
        store = prepare([source], model.tokenizer, Path(folder) / "store", validation=0)
        return evaluate_store(model.checkpoint, store, "train", str(model.device))


@dataclass(frozen=True, kw_only=True)
class PredictArguments(ColumnArguments):
    """table: rows, which need no labels. out: a .csv for spreadsheets, or .jsonl; without it, JSON lines are
    printed."""

    model: Positional[str]
    table: Positional[str]
    out: str | None = None
    device: str = "auto"


def predict(arguments: Sequence[str]) -> None:
    """`bothways predict M F`."""
    from bothways.train.evaluate import write_predictions

    options = parse(
        "predict",
        PredictArguments,
        arguments,
        "Predict every row of a table. Example: bothways predict tickets new.csv --out predictions.csv",
    )
    out = Path(options.out) if options.out else None
    if out is not None:
        require_file_writable(out, (".csv", ".jsonl"), "--out")
        if out.exists() and Path(options.table).exists() and out.samefile(options.table):
            raise UserError(f"--out {out}: is the table itself")
    model = load(options.model, options.device)
    task = options.applied(model.task())
    if Path(options.table).suffix.lower() not in SUFFIXES:
        raise UserError(f"{options.table}: a table of rows ends in one of {', '.join(SUFFIXES)}")
    rows = read_rows(options.table, task.columns(labelled=False))
    predictions = model.predict(rows, task, Counting("predict"))
    table = [
        {**_carried(task, row), **task.describe(one, row, labelled=False)}
        for one, row in zip(predictions, rows, strict=True)
    ]
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in table)
    if out is None:
        print(lines, end="")
    elif out.suffix == ".csv":
        write_predictions(out, table)
    else:
        write_text(out, lines)
    if out is not None:
        print(f"{out}: {len(rows):,} predictions")


def _carried(task: Task, row: Row) -> dict[str, Any]:
    """The row's other columns, an id say, where they fit a cell."""
    read = task.columns(labelled=True)
    return {
        name: value for name, value in row.values.items() if name not in read and isinstance(value, str | int | float)
    }


def say(line: str) -> None:
    """A line of its own on standard error."""
    import sys

    print(line, file=sys.stderr)


def figure_lines(figures: Mapping[str, Any]) -> list[str]:
    """Figures of merit for the terminal: the numbers, those by label, and a confusion matrix that is not too large."""
    console = Console(width=120)
    numbers = [f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items() if isinstance(value, float)]
    with console.capture() as capture:
        if figures.get("labels"):
            by_label = Table("label", "precision", "recall", "F1", "rows")
            for label, values in figures["labels"].items():
                *ratios, support = values.values()
                by_label.add_row(escape(label), *(f"{value:.3f}" for value in ratios), f"{support:,}")
            console.print(by_label)
        if "confusion" in figures and len(figures["confusion"]) <= 12:
            labels = list(figures["labels"])
            confusion = Table("truth ↓ predicted →", *map(escape, labels))
            for label, counts in zip(labels, figures["confusion"], strict=True):
                confusion.add_row(escape(label), *(f"{count:,}" for count in counts))
            console.print(confusion)
    return ["   ".join(numbers), *capture.get().splitlines()]
