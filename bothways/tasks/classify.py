"""classify: a text or a pair of texts gets one label, any number of labels, or a number (Devlin et al. 2018, section
4.1). Three tasks with one head, told apart by the `problem_type` that Hugging Face configs have.
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
from bothways.errors import UserError, command, option
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
    shortened_list,
    softmax,
)
from bothways.tasks.class_weights import class_weights
from bothways.tasks.classifications import Classification, MultiClassification, Regression
from bothways.tasks.classify_options import ClassifyOptions
from bothways.tasks.label_scores import best_threshold, least_certain, score_array, scores_by_label
from bothways.tasks.label_values import (
    advice_on_classes,
    labels_of_vector,
    require_classes,
    require_no_list,
    several_labels,
)
from bothways.tasks.metrics import classification_figures, correlations, figures_of_several
from bothways.tasks.soft_scores import binary_divergence, divergence
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


PROBLEMS: dict[str, type[ClassifyTask]] = {
    "single_label_classification": ClassifyTask,
    "multi_label_classification": MultiLabelTask,
    "regression": RegressionTask,
}
