"""classify: one label for a text or a pair of texts (Devlin et al. 2018, section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.data.tables import Row
from bothways.errors import UserError
from bothways.model.encoder import Encoder
from bothways.model.heads import SequenceHead
from bothways.tasks.base import Encoded, join_segments
from bothways.text.lines import is_unicode
from bothways.text.wordpiece import WordPieceTokenizer


@dataclass(frozen=True)
class Classification:
    """label: the likeliest one. scores: the probability of every label, in the model's order; they sum to one."""

    label: str
    scores: dict[str, float]


@dataclass(frozen=True)
class ClassifyTask:
    """Cross-entropy over the labels that the training data had; they stay with the checkpoint."""

    labels: tuple[str, ...]
    text_column: str = "text"
    pair_column: str | None = None
    label_column: str = "label"

    name: ClassVar[str] = "classify"
    example: ClassVar[Mapping[str, Any]] = {"text": "The router shows a red light.", "label": "hardware"}

    @property
    def columns(self) -> Mapping[str, str]:
        pair = {self.pair_column: "the second text of the pair"} if self.pair_column else {}
        return {self.text_column: "the text", **pair, self.label_column: "its label"}

    @classmethod
    def from_rows(cls, rows: Sequence[Row], **columns: Any) -> ClassifyTask:
        """The task whose labels are those of the rows, sorted. Raises UserError for fewer than two labels."""
        task = cls((), **columns)
        labels = sorted({task._label(row) for row in rows})
        if len(labels) < 2:
            raise UserError(
                f"{rows[0].source}: every row has the label {labels[0]!r}; classification needs at least two"
            )
        return replace(task, labels=tuple(labels))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> ClassifyTask:
        """The task that `state()` described in a checkpoint; of a foreign checkpoint, only the labels are known."""
        if not state.get("labels"):
            raise UserError(
                "this model has no labels: it is not a classifier; make one with `bothways finetune classify`"
            )
        return cls(tuple(state["labels"]), **state.get("columns", {}))

    def state(self) -> dict[str, Any]:
        columns = {name: getattr(self, name) for name in ("text_column", "pair_column", "label_column")}
        return {"task": self.name, "labels": list(self.labels), "columns": columns}

    def _label(self, row: Row) -> str:
        value = row.values.get(self.label_column)
        if value is None or value != value or not str(value).strip():  # a number that is not itself is NaN
            raise UserError(f"{row.source}: column {self.label_column!r} has no label")
        if not isinstance(value, str | int | float) or not is_unicode(str(value)):
            raise UserError(f"{row.source}: column {self.label_column!r} is {str(value)[:40]!a}, not a label")
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # a column of whole numbers with a gap in it comes as floats
        return str(value).strip()

    def check_labels(self, rows: Sequence[Row]) -> None:
        """Raises UserError when rows carry labels that the training data did not have, naming both sets."""
        unseen = sorted({self._label(row) for row in rows} - set(self.labels))
        if unseen:
            first = next(row for row in rows if self._label(row) == unseen[0])
            raise UserError(
                f"{first.source}: labels never seen in training: {', '.join(unseen)}; known: {', '.join(self.labels)}"
            )

    def texts(self, row: Row) -> str | tuple[str, str]:
        """What the model reads of a row."""
        if self.pair_column is None:
            return row.text(self.text_column)
        return row.text(self.text_column), row.text(self.pair_column)

    def encode(self, rows: Sequence[Row], tokenizer: WordPieceTokenizer, max_length: int) -> list[Encoded]:
        """Labelled rows as tokens with the target `labels`, the label's number."""
        self.check_labels(rows)
        number = {label: index for index, label in enumerate(self.labels)}
        encoded = join_segments(tokenizer, [self.texts(row) for row in rows], max_length)
        return [
            replace(one, targets={"labels": np.array(number[self._label(row)])})
            for one, row in zip(encoded, rows, strict=True)
        ]

    def collate(self, encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
        return {"labels": np.array([one.targets["labels"] for one in encoded])}

    def head(self, encoder: Encoder) -> nn.Module:
        return SequenceHead(encoder, len(self.labels))

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, int]:
        rows = targets["labels"].shape[0]
        return {"loss": rows, "accuracy": rows}

    def sums(self, scores: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        labels = targets["labels"]
        return {
            "loss": F.cross_entropy(scores.float(), labels, reduction="sum"),
            "accuracy": (scores.detach().argmax(-1) == labels).sum(),
        }

    def decode(self, scores: Tensor, encoded: Sequence[Encoded]) -> list[Classification]:
        """scores: logits `[N, num_labels]`."""
        predictions = []
        for row in scores.float().softmax(-1).tolist():
            by_label = dict(zip(self.labels, row, strict=True))
            predictions.append(Classification(max(by_label, key=by_label.__getitem__), by_label))
        return predictions

    def metrics(self, predictions: Sequence[Classification], rows: Sequence[Row]) -> dict[str, Any]:
        """accuracy, macro_f1, per-label precision, recall, f1 and support, and the confusion matrix (rows: truth).

        A ratio whose denominator is zero is 0, as in scikit-learn's `classification_report`.
        """
        number = {label: index for index, label in enumerate(self.labels)}
        confusion = np.zeros((len(self.labels), len(self.labels)), dtype=np.int64)
        for prediction, row in zip(predictions, rows, strict=True):
            confusion[number[self._label(row)], number[prediction.label]] += 1
        right, support, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        per_label = {
            label: {
                "precision": _ratio(right[i], predicted[i]),
                "recall": _ratio(right[i], support[i]),
                "f1": _ratio(2 * right[i], support[i] + predicted[i]),
                "support": int(support[i]),
            }
            for i, label in enumerate(self.labels)
        }
        return {
            "accuracy": _ratio(right.sum(), confusion.sum()),
            "macro_f1": sum(figures["f1"] for figures in per_label.values()) / len(per_label),
            "labels": per_label,
            "confusion": confusion.tolist(),
        }


def _ratio(part: np.integer[Any], whole: np.integer[Any]) -> float:
    return float(part) / float(whole) if whole else 0.0
