"""Labelled rows that a task can use, a model measured on them, and its predictions as a table."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bothways.data.encoded import Encoded
from bothways.data.holdout import hold_out
from bothways.data.tables import BadRow, Row, TableOptions, read_table
from bothways.errors import UserError, closest, option
from bothways.files import write_text
from bothways.inference import engine
from bothways.model.heads import Model
from bothways.tasks.base import Task
from bothways.text.tokenizer import Tokenizer

Table = str | Path | Iterable[Any]  # of dictionaries; a table of pandas is an iterable of something else
MAX_BAD_ROWS_SHOWN = 3  # of the rows left out; the others are only counted


@dataclass(frozen=True)
class RowSet:
    """A table's rows that a task can use.

    task: as the table's columns and, once fitted, its rows have it. skipped: how many rows were left out.
    """

    task: Task
    rows: Sequence[Row] = ()
    skipped: int = 0

    @classmethod
    def read(cls, table: Table, task: Task, skip_bad: bool, options: TableOptions) -> RowSet:
        """Read a table. Raises UserError as `read_table` and `usable_rows` do."""
        found = read_table(table, options)
        task = task.for_columns(columns_of(found))
        rows, skipped = usable_rows(task, found, skip_bad, options.say)
        return cls(task, rows, skipped)

    def fitted(self) -> RowSet:
        """The same rows, the task fitted to them."""
        return replace(self, task=self.task.fitted(self.rows))

    def held_out(self, share: float, seed: int, say: Callable[[str], None]) -> tuple[RowSet, RowSet]:
        """The rows to train on and those to measure on, a `share` of all, as `data.holdout` parts them; it is said.

        Raises UserError for a share that is not above 0 and below 1, or holds no row out.
        """
        if not 0 < share < 1:
            wanted = "a table, or a share of the training rows above 0 and below 1"
            raise UserError(f"{option('eval', share)}: expected {wanted}")
        parts = hold_out(self.rows, share, seed, self.task.kept_together, self.task.labels_of)
        counts = f"{len(parts.held_out):,} of {len(self.rows):,} rows"
        together = f"; {parts.kept_together:,} rows that share a text or nearly so are kept on one side"
        say(
            f"held out {counts} to measure on, chosen by {option('seed', seed)}"
            + (together if parts.kept_together else "")
        )
        return RowSet(self.task, parts.train, self.skipped), RowSet(self.task, parts.held_out)

    def encode(self, tokenizer: Tokenizer, max_length: int) -> list[Encoded]:
        """The rows as tokens, without targets; a row may be several sequences."""
        return self.task.encode(self.rows, tokenizer, max_length) if self.rows else []

    @property
    def fingerprint(self) -> str:
        """A hash of the rows' values, by which a resumed run knows the rows; "none" where there are none."""
        content = json.dumps([dict(row.values) for row in self.rows], default=str, sort_keys=True)
        return hashlib.sha256(content.encode(errors="replace")).hexdigest()[:16] if self.rows else "none"


@dataclass(frozen=True)
class Evaluation:
    """A prediction for each row, and how good they are.

    task: with the thresholds that were used. metrics: the task's figures; the first decides which model is the best.
    """

    task: Task
    rows: Sequence[Row]
    predictions: Sequence[Any]
    metrics: dict[str, Any]

    def __repr__(self) -> str:
        return f"Evaluation({self.task.name}, {len(self.rows):,} rows, {figures_in_short(self.metrics)})"

    @property
    def score(self) -> float:
        """The deciding figure, of which more is better."""
        return float(next(iter(self.metrics.values())))

    def table(self) -> list[dict[str, Any]]:
        """A line for each row: what was read, predicted and true, as `Task.describe` has it."""
        pairs = zip(self.predictions, self.rows, strict=True)
        return [self.task.describe(prediction, row, labelled=True) for prediction, row in pairs]


def figures_in_short(metrics: Mapping[str, Any]) -> str:
    """The figures that are single numbers: `accuracy=0.933, macro_f1=0.931`."""
    return ", ".join(f"{name}={value:.4g}" for name, value in metrics.items() if isinstance(value, int | float))


def evaluate_rows(
    model: Model,
    task: Task,
    rows: Sequence[Row],
    encoded: Sequence[Encoded],
    *,
    tune: bool = False,
    run: engine.RunForward = engine.run_here,
) -> Evaluation:
    """Predict labelled rows and measure the predictions.

    encoded: what `task.encode` made of the rows. tune: choose the task's thresholds on these rows first, or on some of
    them where rows × labels is more than `engine.MAX_KEPT_SCORES`; then predictions are `condensed` as well.
    run: what runs the model.
    """
    tune = tune and task.has_thresholds
    if tune and len(rows) * max(1, len(task.labels)) <= engine.MAX_KEPT_SCORES:
        scores = engine.score(model, task, encoded, run=run)
        tuned = task.with_tuned_thresholds(engine.decode(task, scores, encoded, rows), rows)
        predictions = engine.decode(tuned, scores, encoded, rows)
        return Evaluation(tuned, rows, predictions, tuned.metrics(predictions, rows))
    tuned, tuned_on = _tuned_on_some(model, task, rows, encoded, run) if tune else (task, {})
    chunks = engine.predict_in_chunks(model, tuned, encoded, rows, run=run)
    predictions = [prediction for _, chunk in chunks for prediction in chunk]
    return Evaluation(tuned, rows, predictions, {**tuned.metrics(predictions, rows), **tuned_on})


def _tuned_on_some(
    model: Model, task: Task, rows: Sequence[Row], encoded: Sequence[Encoded], run: engine.RunForward
) -> tuple[Task, dict[str, int]]:
    """The task with thresholds chosen on as many rows, evenly spaced, as have no more than `MAX_KEPT_SCORES` scores,
    since all scores of a label have to be in memory for that; and how many rows these were, for the figures."""
    number = max(1, engine.MAX_KEPT_SCORES // len(task.labels))
    chosen = {index * len(rows) // number: index for index in range(number)}
    some = [rows[index] for index in chosen]
    sequences = [replace(sequence, row=chosen[sequence.row]) for sequence in encoded if sequence.row in chosen]
    tuned = task.with_tuned_thresholds(engine.predict(model, task, sequences, some, run=run), some)
    return tuned, {"rows_thresholds_were_tuned_on": number}


def columns_of(rows: Sequence[Row | BadRow]) -> list[str]:
    """Every column that some row has, in order."""
    return list(dict.fromkeys(name for row in rows if isinstance(row, Row) for name in row.values))


def usable_rows(
    task: Task, rows: Sequence[Row | BadRow], skip_bad: bool, say: Callable[[str], None]
) -> tuple[list[Row], int]:
    """The rows that the task can use, and how many it cannot.

    Raises UserError at the first bad row, or, with skip_bad, only where no row is good; what was left out is said.
    """
    readable = next((row for row in rows if isinstance(row, Row)), None)
    if readable is not None:  # a table without the column is a mistake in the command, not a bad row
        _require_columns(task, Row(dict.fromkeys(columns_of(rows)), readable.source))
    good, bad = [], []
    for row in rows:
        try:
            if isinstance(row, BadRow):
                raise UserError(f"{row.source}: {row.reason}")
            _require_columns(task, row)
            task.check(row)
            good.append(row)
        except UserError as error:
            if not skip_bad:
                raise UserError(f"{error} ({option('skip_bad', True)} leaves such rows out)") from error
            bad.append(str(error))
    if skip_bad and good and (stray := task.stray_rows(good)):
        bad += stray.values()
        good = [row for number, row in enumerate(good) if number not in stray]
    if bad:
        more = "; …" if len(bad) > MAX_BAD_ROWS_SHOWN else ""
        say(f"{len(bad):,} of {len(rows):,} rows left out: {'; '.join(bad[:MAX_BAD_ROWS_SHOWN])}{more}")
    if not good:
        raise UserError(f"none of {len(rows):,} rows can be used: {bad[0]}")
    return good, len(bad)


def _require_columns(task: Task, row: Row) -> None:
    for column, what in task.columns().items():
        if column not in row.values:
            present = [str(name) for name in row.values]
            raise UserError(
                f"{row.source}: no column {column!r}, {what}{closest(column, present)}; "
                f"columns present: {', '.join(present) or 'none'}{_names_one(task, column)}"
            )


def _names_one(task: Task, column: str) -> str:
    """`" (--text-column names one)"` of the option that a column's name comes from; empty where there is none."""
    of_task: Any = task
    names = (name for name, value in vars(of_task.options).items() if name.endswith("_column") and value == column)
    found = next(names, None)
    return "" if found is None else f" ({option(found)} names one)"


def write_predictions(path: Path, table: Sequence[Mapping[str, Any]]) -> None:
    """Write a table as CSV that spreadsheets open, UTF-8 with a byte order mark."""
    columns: dict[str, None] = {}
    for line in table:
        columns.update(dict.fromkeys(line))
    file = io.StringIO()
    writer = csv.DictWriter(file, list(columns))
    writer.writeheader()
    writer.writerows(_cells(table))
    write_text(path, "\ufeff" + file.getvalue())


def _cells(table: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    for line in table:
        yield {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in line.items()}
