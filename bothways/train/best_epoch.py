"""The best epoch of fine-tuning: every epoch is measured, the best one's model is kept, and is the run's in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bothways.checkpoint.hugging_face import Checkpoint, load_checkpoint, save_checkpoint
from bothways.data.encoded import Encoded
from bothways.files import replace_with, write_json
from bothways.model.heads import device_of
from bothways.tasks.base import Task
from bothways.train.evaluate import Evaluation, RowSet, columns_of, evaluate_rows, write_predictions
from bothways.train.run import RunDirectory
from bothways.train.shared_forward import run_shared

EVALUATION, PREDICTIONS = "evaluation.json", "predictions.csv"


class BestEpoch:
    """Measures the model after each epoch, tunes the task's thresholds, and keeps the best model so far.

    Which epoch was the best is read from the run's metrics, so that a resumed run goes on as an undisturbed run would.
    Without evaluation rows nothing is measured, and the last model is the best.

    checkpoint: the model in training. rows: the evaluation rows; encoded: the same as tokens. patience: epochs without
    a better one after which the run is to end; 0: it never is. metadata: what bothways.json has besides the task, with
    `provenance`.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        rows: RowSet,
        encoded: Sequence[Encoded],
        run: RunDirectory,
        patience: int,
        metadata: Mapping[str, Any],
    ) -> None:
        self._checkpoint, self._rows, self._encoded = checkpoint, rows, encoded
        self._run, self._patience, self._metadata = run, patience, metadata
        self._world = run.world
        self._path = run.path / "best"
        self._evaluation: Evaluation | None = None

    @property
    def scores(self) -> list[float]:
        """The deciding figure of each epoch so far, as the run's metrics have it. All processes must ask for it."""
        scores: list[float] = self._world.agree(scores_of(self._run.metrics()) if self._world.main else None)
        return scores

    @property
    def number(self) -> int | None:
        """The best epoch so far, counted from 1, of equal ones the last; None where none was measured."""
        return best_of(self.scores)

    def evaluate(self) -> dict[str, float]:
        """Measure the model as it is now, and keep it with its predictions where it is the best so far. Returns the
        figures for the log."""
        if not self._rows.rows:
            return {}
        model, rows = self._checkpoint.model, self._rows
        evaluation = evaluate_rows(model, rows.task, rows.rows, self._encoded, tune=True, run=run_shared(self._world))
        scores = self.scores
        if not scores or evaluation.score >= max(scores):  # of equal epochs the one that has seen more
            self._evaluation = evaluation
            if self._world.main:
                self._keep(evaluation, number=len(scores) + 1)
        return {name: value for name, value in evaluation.metrics.items() if isinstance(value, float)}

    def _keep(self, evaluation: Evaluation, number: int) -> None:
        """Write the model, which is the best so far, with its predictions. number: of its epoch, from 1."""
        self._checkpoint.metadata = self._metadata_of(evaluation.task, best_epoch=number)
        save_checkpoint(self._checkpoint, self._path)
        write_json(self._path / EVALUATION, evaluation.metrics)
        write_predictions(self._path / PREDICTIONS, evaluation.table())

    def is_out_of_patience(self) -> bool:
        """Whether `patience` epochs in a row were no better than the best."""
        if not self._patience:
            return False
        scores = self.scores
        return bool(scores) and scores[::-1].index(max(scores)) >= self._patience

    def finish(self) -> Evaluation | None:
        """Make the best model the run's model, or the last model where nothing was measured. Returns the best epoch's
        evaluation."""
        if not self._rows.rows:
            self._checkpoint.metadata = self._metadata_of(self._rows.task)
            if self._world.main:
                save_checkpoint(self._checkpoint, self._run.model_path)
            self._world.wait()
            return None
        if not self._world.agree(self._path.exists() or self._run.model_path.exists()):
            self.evaluate()  # the run ends before the end of its first epoch
        if self._world.main:
            self._place_best()
        self._world.wait()
        return self._evaluation or self._evaluate_kept()

    def _place_best(self) -> None:
        """Give the best model, its figures and its predictions their places in the run."""
        if self._path.exists():
            replace_with(self._path, self._run.model_path)
        for name in (EVALUATION, PREDICTIONS):
            if (self._run.model_path / name).exists():
                (self._run.model_path / name).replace(self._run.path / name)

    def _evaluate_kept(self) -> Evaluation:
        """Measure the best model once more, where an earlier process had found it."""
        best = load_checkpoint(self._run.model_path)
        task = self._rows.task.from_json(best.metadata).for_columns(columns_of(self._rows.rows))
        best.model.to(device_of(self._checkpoint.model))
        return evaluate_rows(best.model, task, self._rows.rows, self._encoded, run=run_shared(self._world))

    def _metadata_of(self, task: Task, **provenance: Any) -> dict[str, Any]:
        """What bothways.json keeps. provenance: what is to be said of this model besides."""
        return {**task.to_json(), **self._metadata, "provenance": {**self._metadata["provenance"], **provenance}}


def scores_of(metrics: Sequence[Mapping[str, Any]]) -> list[float]:
    """The deciding figure of each epoch: the first that was logged of each evaluation."""
    lines = [[value for name, value in line.items() if name.startswith("eval_")] for line in metrics]
    return [values[0] for values in lines if values]


def best_of(scores: Sequence[float]) -> int | None:
    """The epoch with the highest score, counted from 1, of equal ones the last; None of no epochs."""
    return len(scores) - scores[::-1].index(max(scores)) if scores else None
