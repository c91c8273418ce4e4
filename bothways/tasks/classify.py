"""classify: a text or a pair of texts gets one label (Devlin et al. 2018, section 4.1); in `classify_several.py` any
number of labels, in `classify_number.py` a number. Three tasks with one head, told apart by the `problem_type` that
Hugging Face configs have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import torch.nn.functional as F
from torch import Tensor

from bothways.data.encoded import Encoded, join_segments
from bothways.data.tables import Row
from bothways.errors import UserError, command
from bothways.model.encoder import Encoder
from bothways.model.families import build_head
from bothways.model.heads import Head
from bothways.tasks.base import (
    ResultColumn,
    SoftScores,
    Task,
    at_least_float32,
    check_label,
    options_from_json,
    softmax,
)
from bothways.tasks.class_weights import class_weights
from bothways.tasks.classifications import Classification
from bothways.tasks.classify_options import ClassifyOptions
from bothways.tasks.label_scores import scores_by_label
from bothways.tasks.label_values import (
    advice_on_classes,
    require_classes,
    require_no_list,
)
from bothways.tasks.metrics import classification_figures
from bothways.tasks.soft_scores import divergence
from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class ClassifyTask(Task):
    """Cross-entropy over the labels that the training data had; they stay with the checkpoint.

    weights: of each label in the loss, or none. A mean over rows is then weighted by their label's weight.
    """

    options: ClassifyOptions = field(default_factory=ClassifyOptions)
    labels: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()

    name: ClassVar[str] = "classify"
    Options: ClassVar[type] = ClassifyOptions
    example: ClassVar[Mapping[str, Any]] = {"text": "The router shows a red light.", "label": "hardware"}
    soft_scores: ClassVar[SoftScores | None] = "texts"
    next_command: ClassVar[str] = 'classify {model} "a text of yours"'

    @property
    def reads_pairs(self) -> bool:
        return self.options.pair_column is not None

    @classmethod
    def make(cls, options: ClassifyOptions) -> ClassifyTask:
        """The task that the options' `problem_type` asks for."""
        return PROBLEMS[options.problem_type](options)

    def columns(self, labelled: bool = True) -> dict[str, str]:
        options = self.options
        pair = {options.pair_column: "the second text of the pair"} if options.pair_column else {}
        return {options.text_column: "the text", **pair, **({options.label_column: "its label"} if labelled else {})}

    def texts(self, row: Row) -> str | tuple[str, str]:
        """The text of a row, or its pair of texts."""
        text = row.text(self.options.text_column)
        return text if self.options.pair_column is None else (text, row.text(self.options.pair_column))

    def gold(self, row: Row) -> Any:
        """The row's gold label. Raises UserError for a row without one."""
        column = self.options.label_column
        require_no_list(row.values.get(column), f"{row.source}: column {column!r}")
        return row.label(column)

    def check(self, row: Row) -> None:
        self.texts(row)
        check_label(self.gold(row), self.label_numbers, row.source)

    def labels_of(self, row: Row) -> tuple[str, ...]:
        return (self.gold(row),)

    def advice(self, rows: Sequence[Row]) -> str | None:
        if self.options.problem_type != "single_label_classification":
            return None
        return advice_on_classes(Counter(self.gold(row) for row in rows))

    def fitted(self, rows: Sequence[Row]) -> Self:
        counts = Counter(self.gold(row) for row in rows)
        require_classes(counts, rows[0].source)
        labels = sorted(counts)
        if len(labels) < 2:
            raise UserError(
                f"{rows[0].source}: every row has the label {labels[0]!r}; classification needs at least two"
            )
        return replace(self, labels=tuple(labels), weights=class_weights(self.options.class_weights, counts, labels))

    def to_json(self) -> dict[str, Any]:
        named = {"task": self.name, "problem_type": self.options.problem_type, "labels": list(self.labels)}
        options = asdict(self.options)
        if not self.options.label_names:
            del options["label_names"]  # runs from before there were such names go on
        return {**named, "options": options}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> ClassifyTask:
        problem = state.get("problem_type") or "single_label_classification"
        labels = tuple(state.get("labels", ()))
        if state.get("task") != cls.name or problem not in PROBLEMS or not labels:
            raise UserError(f"this model is not a classifier; make one with {command('finetune', 'classify')}")
        options: Any = {**state.get("options", {}), "problem_type": problem}
        return PROBLEMS[problem]._restored(options_from_json(ClassifyOptions, {"options": options}), labels, state)

    @classmethod
    def _restored(cls, options: ClassifyOptions, labels: tuple[str, ...], state: Mapping[str, Any]) -> Self:
        if len(labels) < 2:
            raise UserError(f"a classifier of {len(labels)} label ({labels[0]}) decides nothing")
        return cls(options, labels)

    def encode(self, rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> list[Encoded]:
        return join_segments(tokenizer, [self.texts(row) for row in rows], max_length)

    def add_targets(self, encoded: Sequence[Encoded], rows: Sequence[Row]) -> list[Encoded]:
        return [replace(sequence, targets={"labels": self._target(rows[sequence.row])}) for sequence in encoded]

    def _target(self, row: Row) -> np.ndarray:
        """The number of the gold label: int64 `[]`."""
        return np.array(self.label_numbers[self.gold(row)])

    def collate(self, encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
        """labels: `[N]`, or `[N, labels]` where a row may have several."""
        if "labels" not in encoded[0].targets:
            return {}
        return {"labels": np.array([sequence.targets["labels"] for sequence in encoded])}

    def head(self, encoder: Encoder) -> Head:
        return build_head(encoder, "sequence", len(self.labels))

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        labels = targets["labels"]
        weight = np.array(self.weights)[labels.cpu().numpy()].sum() if self.weights else len(labels)
        return {"loss": float(weight), "accuracy": len(labels)}

    def sums(self, scores: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """scores: logits `[N, labels]`."""
        labels = targets["labels"]
        weight = scores.new_tensor(self.weights, dtype=at_least_float32(scores).dtype) if self.weights else None
        return {
            "loss": F.cross_entropy(at_least_float32(scores), labels, weight=weight, reduction="sum"),
            "accuracy": (scores.detach().argmax(-1) == labels).sum(),
        }

    def soft_targets(self, scores: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [scores[0][None]]

    def soft_count(self, targets: Mapping[str, Tensor]) -> float:
        return replace(self, weights=()).counts(targets)["loss"]

    def soft_loss(self, scores: Tensor, targets: Mapping[str, Tensor], temperature: float) -> Tensor:
        return divergence(scores, targets["soft"], temperature)

    def decode(self, scores: Sequence[np.ndarray], encoded: Sequence[Encoded], row: Row) -> Any:
        probabilities = softmax(scores[0])
        by_label = scores_by_label(self.label_numbers, probabilities)
        return Classification(self.labels[int(probabilities.argmax())], by_label)

    def condensed(self, prediction: Any) -> Any:
        return Classification(prediction.label, {prediction.label: prediction.scores[prediction.label]})

    def metrics(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, Any]:
        gold = [self.gold(row) for row in rows]
        return classification_figures(gold, [prediction.label for prediction in predictions], self.labels)

    def describe(self, prediction: Any, row: Row, labelled: bool) -> dict[str, Any]:
        described = {"predicted": prediction.label, "probability": prediction.scores[prediction.label]}
        if labelled:
            described |= {"truth": self.gold(row), "right": self.gold(row) == prediction.label}
        return {**self._texts_by_column(row), **described}

    def _texts_by_column(self, row: Row) -> dict[str, str]:
        return {name: row.text(name) for name in self.columns(labelled=False)}

    def result_columns(self) -> tuple[ResultColumn, ...]:
        return (
            ResultColumn("predicted", pa.string(), lambda prediction: prediction.label),
            ResultColumn("probability", pa.float32(), lambda prediction: prediction.scores[prediction.label]),
        )


PROBLEMS: dict[str, type[ClassifyTask]] = {
    "single_label_classification": ClassifyTask
}  # files beside this one add more
