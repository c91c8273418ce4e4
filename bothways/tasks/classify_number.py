"""classify with a number in the place of a label: regression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
from torch import Tensor

from bothways.data.encoded import Encoded
from bothways.data.tables import Row
from bothways.errors import UserError, option
from bothways.tasks.base import ResultColumn, at_least_float32, shortened_list
from bothways.tasks.classifications import Regression
from bothways.tasks.classify import PROBLEMS, ClassifyTask
from bothways.tasks.classify_options import ClassifyOptions
from bothways.tasks.metrics import correlations


@dataclass(frozen=True)
class RegressionTask(ClassifyTask):
    """A number for each text: mean squared error. Numbers are learnt unscaled, so they should be of a size near 1.

    activation: what the score goes through to be the number, of a cross-encoder that was made elsewhere: sigmoid, or
    identity as of others.
    """

    activation: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), **({"activation": self.activation} if self.activation else {})}

    def gold(self, row: Row) -> float:
        return row.number(self.options.label_column)

    def check(self, row: Row) -> None:
        self.texts(row)
        self.gold(row)

    def labels_of(self, row: Row) -> tuple[str, ...]:
        return ()

    def fitted(self, rows: Sequence[Row]) -> Self:
        if self.options.class_weights:
            raise UserError(f"{option('class_weights')}: a regression has no classes")
        if len({self.gold(row) for row in rows}) < 2:
            raise UserError(f"{rows[0].source}: every row has the same number, {self.gold(rows[0])}")
        return replace(self, labels=("LABEL_0",))  # as transformers names a single output

    @classmethod
    def _restored(cls, options: ClassifyOptions, labels: tuple[str, ...], state: Mapping[str, Any]) -> Self:
        if len(labels) != 1:
            raise UserError(
                f"a regression of {len(labels)} numbers ({shortened_list(labels)}) is not read, one number is"
            )
        return cls(options, labels, activation=state.get("activation"))

    def _target(self, row: Row) -> np.ndarray:
        """The gold number: float32 `[]`."""
        return np.array(self.gold(row), dtype=np.float32)

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        return {"loss": len(targets["labels"])}

    def sums(self, scores: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        numbers = at_least_float32(scores)[:, 0]
        difference = (numbers.sigmoid() if self.activation == "sigmoid" else numbers) - targets["labels"]
        return {"loss": difference.square().sum()}

    def soft_loss(self, scores: Tensor, targets: Mapping[str, Tensor], temperature: float) -> Tensor:
        """The squared difference from the teacher's number, at any temperature."""
        return (at_least_float32(scores) - targets["soft"]).square().sum()

    def decode(self, scores: Sequence[np.ndarray], encoded: Sequence[Encoded], row: Row) -> Any:
        number = float(scores[0][0])
        return Regression(float(np.exp(-np.logaddexp(0, -number))) if self.activation == "sigmoid" else number)

    def condensed(self, prediction: Any) -> Any:
        return prediction

    def metrics(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, Any]:
        """spearman, pearson, and the mean absolute error."""
        gold, values = [self.gold(row) for row in rows], [prediction.value for prediction in predictions]
        return {**correlations(gold, values), "mean_absolute_error": float(np.abs(np.subtract(gold, values)).mean())}

    def describe(self, prediction: Any, row: Row, labelled: bool) -> dict[str, Any]:
        described = {"predicted": prediction.value}
        if labelled:
            described |= {"truth": self.gold(row), "error": abs(self.gold(row) - prediction.value)}
        return {**self._texts_by_column(row), **described}

    def result_columns(self) -> tuple[ResultColumn, ...]:
        return (ResultColumn("predicted", pa.float64(), lambda prediction: prediction.value),)


PROBLEMS.update(regression=RegressionTask)
