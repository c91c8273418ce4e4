"""classify: a text or a pair of texts gets one label, any number of labels, or a number (Devlin et al. 2018, section
4.1). Three tasks with one head, told apart by the `problem_type` that Hugging Face configs have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from bothways.data.encoded import Encoded, join_segments
from bothways.data.tables import Row, as_label
from bothways.errors import UserError, closest
from bothways.model.encoder import Encoder
from bothways.model.heads import Head, SequenceHead
from bothways.tasks.base import Task, at_least_float32, options_from_json, softmax
from bothways.tasks.metrics import by_label, classification_figures, correlations, ratio
from bothways.text.tokenizer import Tokenizer

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]


@dataclass(frozen=True)
class Classification:
    """label: the likeliest one. scores: the probability of every label, in the model's order; they sum to one."""

    label: str
    scores: dict[str, float]


@dataclass(frozen=True)
class MultiClassification:
    """labels: those whose probability reaches their threshold. scores: the probability of every label, each by
    itself."""

    labels: list[str]
    scores: dict[str, float]


@dataclass(frozen=True)
class Regression:
    """value: in the unit of the training data."""

    value: float


@dataclass(frozen=True)
class ClassifyOptions:
    """Columns of the table, and what the labels are.

    pair_column: the second text of a pair. problem_type: one label a row; several, as a list or as text with commas; or
    a number. class_weights: `balanced` (a label counts in inverse proportion to its rows) or LABEL=WEIGHT for some.
    """

    text_column: str = "text"
    pair_column: str | None = None
    label_column: str = "label"
    problem_type: ProblemType = "single_label_classification"
    class_weights: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassifyTask(Task):
    """Cross-entropy over the labels that the training data had; they stay with the checkpoint.

    weights: of each label in the loss, or none. A mean over rows is then weighted by their label's weight.
    """

    options: ClassifyOptions = ClassifyOptions()
    labels: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()

    name: ClassVar[str] = "classify"
    Options: ClassVar[type] = ClassifyOptions
    example: ClassVar[Mapping[str, Any]] = {"text": "The router shows a red light.", "label": "hardware"}

    @classmethod
    def make(cls, options: ClassifyOptions) -> ClassifyTask:
        """The task that the options' `problem_type` asks for."""
        return KINDS[options.problem_type](options)

    def columns(self, labelled: bool = True) -> dict[str, str]:
        options = self.options
        pair = {options.pair_column: "the second text of the pair"} if options.pair_column else {}
        return {options.text_column: "the text", **pair, **({options.label_column: "its label"} if labelled else {})}

    def texts(self, row: Row) -> str | tuple[str, str]:
        """What the model reads of a row."""
        text = row.text(self.options.text_column)
        return text if self.options.pair_column is None else (text, row.text(self.options.pair_column))

    def truth(self, row: Row) -> Any:
        """The row's label. Raises UserError where it has none."""
        value = row.values.get(self.options.label_column)
        if isinstance(value, list | tuple):
            raise UserError(
                f"{row.source}: column {self.options.label_column!r} is a list; --problem-type "
                "multi_label_classification learns several labels a row"
            )
        return row.label(self.options.label_column)

    def check(self, row: Row) -> None:
        self.texts(row)
        label = self.truth(row)
        if self.labels and label not in self.labels:
            raise UserError(
                f"{row.source}: label {label!r} was never seen in training{closest(label, self.labels)}; "
                f"known: {', '.join(self.labels)}"
            )

    def fitted(self, rows: Sequence[Row]) -> Self:
        counts = Counter(self.truth(row) for row in rows)
        labels = sorted(counts)
        if len(labels) < 2:
            raise UserError(
                f"{rows[0].source}: every row has the label {labels[0]!r}; classification needs at least two"
            )
        return replace(self, labels=tuple(labels), weights=_weights(self.options.class_weights, counts, labels))

    def to_json(self) -> dict[str, Any]:
        named = {"task": self.name, "problem_type": self.options.problem_type, "labels": list(self.labels)}
        return {**named, "options": asdict(self.options)}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> ClassifyTask:
        problem = state.get("problem_type") or "single_label_classification"
        labels = tuple(state.get("labels", ()))
        if state.get("task") != cls.name or problem not in KINDS or not labels:
            raise UserError("this model is not a classifier; make one with `bothways finetune classify`")
        options: Any = {**state.get("options", {}), "problem_type": problem}
        return KINDS[problem]._restored(options_from_json(ClassifyOptions, {"options": options}), labels, state)

    @classmethod
    def _restored(cls, options: ClassifyOptions, labels: tuple[str, ...], state: Mapping[str, Any]) -> Self:
        if len(labels) < 2:
            raise UserError(f"a classifier of {len(labels)} label ({labels[0]}) decides nothing")
        return cls(options, labels)

    def encode(self, rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> list[Encoded]:
        return join_segments(tokenizer, [self.texts(row) for row in rows], max_length)

    def add_targets(self, encoded: Sequence[Encoded], rows: Sequence[Row]) -> list[Encoded]:
        return [replace(one, targets={"labels": self._target(rows[one.row])}) for one in encoded]

    def _target(self, row: Row) -> np.ndarray:
        return np.array(self.labels.index(self.truth(row)))

    def collate(self, encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
        if "labels" not in encoded[0].targets:
            return {}
        return {"labels": np.array([one.targets["labels"] for one in encoded])}

    def head(self, encoder: Encoder) -> Head:
        return SequenceHead(encoder, len(self.labels))

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        labels = targets["labels"]
        weight = np.array(self.weights)[labels.cpu().numpy()].sum() if self.weights else len(labels)
        return {"loss": float(weight), "accuracy": len(labels)}

    def sums(self, scores: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        labels = targets["labels"]
        weight = scores.new_tensor(self.weights, dtype=at_least_float32(scores).dtype) if self.weights else None
        return {
            "loss": F.cross_entropy(at_least_float32(scores), labels, weight=weight, reduction="sum"),
            "accuracy": (scores.detach().argmax(-1) == labels).sum(),
        }

    def decode(self, scores: Sequence[np.ndarray], encoded: Sequence[Encoded], row: Row) -> Any:
        probabilities = dict(zip(self.labels, softmax(scores[0]).tolist(), strict=True))
        return Classification(max(probabilities, key=probabilities.__getitem__), probabilities)

    def metrics(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, Any]:
        truth = [self.truth(row) for row in rows]
        return classification_figures(truth, [one.label for one in predictions], self.labels)

    def describe(self, prediction: Any, row: Row, labelled: bool) -> dict[str, Any]:
        described = {"predicted": prediction.label, "probability": prediction.scores[prediction.label]}
        if labelled:
            described |= {"truth": self.truth(row), "right": self.truth(row) == prediction.label}
        return {**self._read(row), **described}

    def _read(self, row: Row) -> dict[str, str]:
        return {name: row.text(name) for name in self.columns(labelled=False)}


@dataclass(frozen=True)
class MultiLabelTask(ClassifyTask):
    """Each label is a yes or no of its own: binary cross-entropy, a mean over rows and labels.

    thresholds: the probability from which a label is given, by label; 0.5 until they are tuned.
    """

    thresholds: tuple[float, ...] = ()

    def truth(self, row: Row) -> tuple[str, ...]:
        column = self.options.label_column
        value = row.values.get(column)
        if isinstance(value, str):
            value = [part for part in value.split(",") if part.strip()]
        if not isinstance(value, Sequence | np.ndarray):
            raise UserError(
                f"{row.source}: column {column!r} is {value!r}; several labels are a list, or a text with commas"
            )
        return tuple(dict.fromkeys(as_label(one, f"{row.source}: column {column!r}") for one in value))

    def check(self, row: Row) -> None:
        self.texts(row)
        for label in self.truth(row):
            if self.labels and label not in self.labels:
                raise UserError(
                    f"{row.source}: label {label!r} was never seen in training{closest(label, self.labels)}; "
                    f"known: {', '.join(self.labels)}"
                )

    def fitted(self, rows: Sequence[Row]) -> Self:
        if self.options.class_weights:
            raise UserError("--class-weights: for one label a row; with several, thresholds are tuned instead")
        labels = sorted({label for row in rows for label in self.truth(row)})
        if not labels:
            raise UserError(f"{rows[0].source}: no row has any label")
        return replace(self, labels=tuple(labels))

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "thresholds": list(self.thresholds)}

    @classmethod
    def _restored(cls, options: ClassifyOptions, labels: tuple[str, ...], state: Mapping[str, Any]) -> Self:
        return cls(options, labels, thresholds=tuple(state.get("thresholds", ())))

    def _target(self, row: Row) -> np.ndarray:
        return np.isin(self.labels, self.truth(row)).astype(np.float32)

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        return dict.fromkeys(("loss", "accuracy"), targets["labels"].numel())

    def sums(self, scores: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        labels = targets["labels"].to(at_least_float32(scores).dtype)
        return {
            "loss": F.binary_cross_entropy_with_logits(at_least_float32(scores), labels, reduction="sum"),
            "accuracy": ((scores.detach() > 0) == (labels > 0.5)).sum(),
        }

    def decode(self, scores: Sequence[np.ndarray], encoded: Sequence[Encoded], row: Row) -> Any:
        probabilities = (1 / (1 + np.exp(-scores[0].astype(np.float64)))).tolist()
        thresholds = self.thresholds or (0.5,) * len(self.labels)
        given = [one for one, p, least in zip(self.labels, probabilities, thresholds, strict=True) if p >= least]
        return MultiClassification(given, dict(zip(self.labels, probabilities, strict=True)))

    def with_tuned_thresholds(self, predictions: Sequence[Any], rows: Sequence[Row]) -> Self:
        """For each label the threshold of the best F1 on these rows; 0.5 for a label that none of them has."""
        truth = np.array([self._target(row) for row in rows]) > 0.5
        scores = np.array([list(one.scores.values()) for one in predictions])
        return replace(self, thresholds=tuple(_best_threshold(s, t) for s, t in zip(scores.T, truth.T, strict=True)))

    def metrics(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, Any]:
        """micro_f1, macro_f1, the share of rows with exactly the right labels, figures by label."""
        truth = np.array([self._target(row) for row in rows]) > 0.5
        given = np.array([np.isin(self.labels, one.labels) for one in predictions])
        right, predicted, support = (truth & given).sum(0), given.sum(0), truth.sum(0)
        figures = by_label(right, predicted, support, self.labels)
        return {
            "micro_f1": ratio(2 * right.sum(), support.sum() + predicted.sum()),
            "macro_f1": ratio(sum(one["f1"] for one in figures.values()), len(figures)),
            "exact_match": float((truth == given).all(1).mean()),
            "labels": figures,
        }

    def describe(self, prediction: Any, row: Row, labelled: bool) -> dict[str, Any]:
        sure = [p if one in prediction.labels else 1 - p for one, p in prediction.scores.items()]
        described = {"predicted": ", ".join(prediction.labels) or "no label", "least_probability": min(sure)}
        if labelled:
            truth = self.truth(row)
            described |= {"truth": ", ".join(sorted(truth)), "right": set(truth) == set(prediction.labels)}
        return {**self._read(row), **described}


@dataclass(frozen=True)
class RegressionTask(ClassifyTask):
    """A number: mean squared error. Numbers are learnt as they are, so they should be of a size near one."""

    def truth(self, row: Row) -> float:
        return row.number(self.options.label_column)

    def check(self, row: Row) -> None:
        self.texts(row)
        self.truth(row)

    def fitted(self, rows: Sequence[Row]) -> Self:
        if self.options.class_weights:
            raise UserError("--class-weights: a regression has no classes")
        if len({self.truth(row) for row in rows}) < 2:
            raise UserError(f"{rows[0].source}: every row has the same number, {self.truth(rows[0])}")
        return replace(self, labels=("LABEL_0",))  # as transformers names a single output

    @classmethod
    def _restored(cls, options: ClassifyOptions, labels: tuple[str, ...], state: Mapping[str, Any]) -> Self:
        if len(labels) != 1:
            raise UserError(f"a regression of {len(labels)} numbers ({', '.join(labels)}) is not read, one number is")
        return cls(options, labels)

    def _target(self, row: Row) -> np.ndarray:
        return np.array(self.truth(row), dtype=np.float32)

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        return {"loss": len(targets["labels"])}

    def sums(self, scores: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        difference = at_least_float32(scores)[:, 0] - targets["labels"]
        return {"loss": difference.square().sum()}

    def decode(self, scores: Sequence[np.ndarray], encoded: Sequence[Encoded], row: Row) -> Any:
        return Regression(float(scores[0][0]))

    def metrics(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, Any]:
        """spearman, pearson, and the mean absolute error."""
        truth, values = [self.truth(row) for row in rows], [one.value for one in predictions]
        return {**correlations(truth, values), "mean_absolute_error": float(np.abs(np.subtract(truth, values)).mean())}

    def describe(self, prediction: Any, row: Row, labelled: bool) -> dict[str, Any]:
        described = {"predicted": prediction.value}
        if labelled:
            described |= {"truth": self.truth(row), "error": abs(self.truth(row) - prediction.value)}
        return {**self._read(row), **described}


KINDS: dict[str, type[ClassifyTask]] = {
    "single_label_classification": ClassifyTask,
    "multi_label_classification": MultiLabelTask,
    "regression": RegressionTask,
}


def _weights(asked: Sequence[str], counts: Mapping[str, int], labels: Sequence[str]) -> tuple[float, ...]:
    if not asked:
        return ()
    if tuple(asked) == ("balanced",):  # as scikit-learn's class_weight="balanced"
        return tuple(sum(counts.values()) / (len(labels) * counts[label]) for label in labels)
    weights = dict.fromkeys(labels, 1.0)
    for one in asked:
        label, _, number = one.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = -1.0
        if label not in weights or not 0 < weight < np.inf:
            raise UserError(
                f"--class-weights {one}: expected `balanced` or LABEL=WEIGHT with a weight above 0 and a label out of "
                f"{', '.join(labels)}"
            )
        weights[label] = weight
    return tuple(weights.values())


def _best_threshold(scores: np.ndarray, truth: np.ndarray) -> float:
    """Halfway between two neighbouring scores, where F1 is the highest; the nearest to 0.5 of several."""
    if not truth.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ordered, right = scores[order], np.cumsum(truth[order])
    f1 = 2 * right / (truth.sum() + np.arange(1, len(right) + 1))
    following = np.append(ordered[1:], 0.0)
    f1 = np.where(ordered > following, f1, -1.0)  # a threshold cannot part equal scores
    middles = (ordered + following) / 2
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(middles[best[np.argmin(np.abs(middles[best] - 0.5))]])
