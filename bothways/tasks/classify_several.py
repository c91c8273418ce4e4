"""classify with several labels a text: each is a yes or no of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import torch.nn.functional as F
from torch import Tensor

from bothways.data.encoded import Encoded
from bothways.data.tables import Row
from bothways.errors import UserError, option
from bothways.tasks.base import ResultColumn, at_least_float32, check_label
from bothways.tasks.classifications import MultiClassification
from bothways.tasks.classify import PROBLEMS, ClassifyTask
from bothways.tasks.classify_options import ClassifyOptions
from bothways.tasks.label_scores import best_threshold, least_certain, score_array, scores_by_label
from bothways.tasks.label_values import labels_of_vector, several_labels
from bothways.tasks.metrics import figures_of_several
from bothways.tasks.soft_scores import binary_divergence


@dataclass(frozen=True)
class MultiLabelTask(ClassifyTask):
    """Each label is a yes or no of its own: binary cross-entropy, a mean over rows and labels.

    thresholds: the probability from which a label is given, by label; 0.5 until they are tuned.
    """

    thresholds: tuple[float, ...] = ()
    has_thresholds: ClassVar[bool] = True

    def gold(self, row: Row) -> tuple[str, ...]:
        value, place = row.values.get(self.options.label_column), f"{row.source}: column {self.options.label_column!r}"
        if self.options.label_names:
            return labels_of_vector(value, self.options.label_names, place)
        return several_labels(value, place)

    def check(self, row: Row) -> None:
        self.texts(row)
        for label in self.gold(row):
            check_label(label, self.label_numbers, row.source)

    def labels_of(self, row: Row) -> tuple[str, ...]:
        return self.gold(row)

    def fitted(self, rows: Sequence[Row]) -> Self:
        if self.options.class_weights:
            asked = option("class_weights")
            raise UserError(f"{asked}: for one label a row; with several, thresholds are tuned instead")
        labels = {label for row in rows for label in self.gold(row)}
        if not labels:
            raise UserError(f"{rows[0].source}: no row has any label")
        if labels == {"0", "1"} and all(len(self.gold(row)) == 2 for row in rows):
            raise UserError(
                f"{rows[0].source}: every row has the two labels 0 and 1; if they are vectors of 0 and 1, say with "
                f"{option('label_names')} what their places stand for"
            )
        return replace(self, labels=self.options.label_names or tuple(sorted(labels)))

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "thresholds": list(self.thresholds)}

    @classmethod
    def _restored(cls, options: ClassifyOptions, labels: tuple[str, ...], state: Mapping[str, Any]) -> Self:
        return cls(options, labels, thresholds=tuple(state.get("thresholds", ())))

    def _target(self, row: Row) -> np.ndarray:
        """The numbers of the gold labels: int64 `[given]`."""
        return np.array([self.label_numbers[label] for label in self.gold(row)], dtype=np.int64)

    def collate(self, encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
        """labels: 1 for a gold label, else 0, float32 `[N, labels]`."""
        if "labels" not in encoded[0].targets:
            return {}
        labels = np.zeros((len(encoded), len(self.labels)), dtype=np.float32)
        for row, sequence in zip(labels, encoded, strict=True):
            row[sequence.targets["labels"]] = 1
        return {"labels": labels}

    def targets_as_json(self, targets: Mapping[str, np.ndarray]) -> str:
        """As runs have it that were begun when a row's target was all its zeros and ones."""
        written = ["0.0"] * len(self.labels)
        for number in targets["labels"]:
            written[number] = "1.0"
        return f'{{"labels": [{", ".join(written)}]}}'

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        return dict.fromkeys(("loss", "accuracy"), targets["labels"].numel())

    def sums(self, scores: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        labels = targets["labels"].to(at_least_float32(scores).dtype)
        return {
            "loss": F.binary_cross_entropy_with_logits(at_least_float32(scores), labels, reduction="sum"),
            "accuracy": ((scores.detach() > 0) == (labels > 0.5)).sum(),
        }

    def soft_loss(self, scores: Tensor, targets: Mapping[str, Tensor], temperature: float) -> Tensor:
        return binary_divergence(scores, targets["soft"], temperature)

    def decode(self, scores: Sequence[np.ndarray], encoded: Sequence[Encoded], row: Row) -> Any:
        probabilities = 1 / (1 + np.exp(-scores[0].astype(np.float64)))
        by_label = scores_by_label(self.label_numbers, probabilities)
        given = np.flatnonzero(score_array(by_label) >= np.array(self.thresholds or 0.5))
        return MultiClassification([self.labels[number] for number in given], by_label)

    def condensed(self, prediction: Any) -> Any:
        kept = (*prediction.labels, least_certain(prediction.scores, prediction.labels)[0])
        return MultiClassification(prediction.labels, {label: prediction.scores[label] for label in kept})

    def with_tuned_thresholds(self, predictions: Sequence[Any], rows: Sequence[Row]) -> Self:
        """For each label the threshold of the best F1 on these rows; 0.5 for a label that none of them has."""
        gold = np.zeros((len(self.labels), len(rows)), dtype=bool)
        for number, row in enumerate(rows):
            gold[self._target(row), number] = True
        scores = np.stack([score_array(prediction.scores) for prediction in predictions], axis=1)
        return replace(self, thresholds=tuple(map(best_threshold, scores, gold)))

    def metrics(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, Any]:
        gold = [self._target(row) for row in rows]
        given = [[self.label_numbers[label] for label in prediction.labels] for prediction in predictions]
        return figures_of_several(gold, given, self.labels)

    def describe(self, prediction: Any, row: Row, labelled: bool) -> dict[str, Any]:
        _, certainty = least_certain(prediction.scores, prediction.labels)
        described = {"predicted": ", ".join(prediction.labels) or "no label", "least_probability": certainty}
        if labelled:
            gold = self.gold(row)
            described |= {"truth": ", ".join(sorted(gold)), "right": set(gold) == set(prediction.labels)}
        return {**self._texts_by_column(row), **described}

    def result_columns(self) -> tuple[ResultColumn, ...]:
        return (
            ResultColumn("predicted", pa.list_(pa.string()), lambda prediction: prediction.labels),
            ResultColumn(
                "probabilities",
                pa.list_(pa.float32()),
                lambda prediction: [prediction.scores[label] for label in prediction.labels],
            ),
        )


PROBLEMS.update(multi_label_classification=MultiLabelTask)
