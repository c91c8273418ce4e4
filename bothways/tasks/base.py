"""What the train loop, the evaluator, the predictor and the command line know of a task.

An `Objective` is what can be trained: a head, and sums with their counts. A `Task` is an objective on labelled rows:
it also knows how a row becomes tokens and how scores become a prediction. Pretraining is an objective; each task a user
fine-tunes for is one file in this folder and one line in `tasks.TASKS`.

Shapes: T tokens, N sequences, H hidden.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from torch import Tensor

from bothways.data.encoded import Encoded, KeepWhole
from bothways.data.tables import Row
from bothways.model.encoder import Encoder
from bothways.model.heads import Head
from bothways.text.tokenizer import Tokenizer


class Objective(Protocol):
    """What the train loop knows."""

    def head(self, encoder: Encoder) -> Head:
        """A new head for this encoder."""
        ...

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        """How many targets each sum of `sums` runs over, known before the forward pass, so that a loss can be divided
        by the count of the whole step; with weighted targets, their weight."""
        ...

    def sums(self, scores: Any, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums over the batch, by name, each a scalar: the losses, and what is only logged."""
        ...

    @property
    def losses(self) -> tuple[str, ...]:
        """The names in `sums` of what is minimised: the means, each sum by its count, are added up."""
        ...


class Task(ABC):
    """An `Objective` on labelled rows: what evaluator, predictor and command line know besides.

    A task is immutable. `make` builds it from its options alone, `fitted` makes of it one that knows the labels, and
    `with_tuned_thresholds` one that knows its thresholds; `to_json` and `from_json` keep all that in a checkpoint.
    """

    name: ClassVar[str]
    example: ClassVar[Mapping[str, Any]]  # a row, for errors and documentation
    Options: ClassVar[type]
    labels: tuple[str, ...] = ()  # in the order of the head's outputs; none for tasks without
    cut_at: ClassVar[str] = "end"  # where a text that is too long loses tokens
    keep_whole: ClassVar[KeepWhole] = (
        "sequence"  # what has to be in one batch for the loss: a sequence, a row, or the whole step
    )

    @classmethod
    @abstractmethod
    def make(cls, options: Any) -> Task:
        """The task as its options ask for it."""

    @classmethod
    @abstractmethod
    def from_json(cls, state: Mapping[str, Any]) -> Task:
        """The task that `state` described. Raises UserError for the state of another task's model."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """What `bothways.json` must keep to build this task again."""

    @abstractmethod
    def columns(self, labelled: bool = True) -> Mapping[str, str]:
        """What a row must have, and what for; with `labelled` what training and evaluation need as well."""

    @abstractmethod
    def check(self, row: Row) -> None:
        """Raises UserError for a labelled row that cannot be used, naming it."""

    def for_columns(self, columns: Collection[str]) -> Task:
        """The task for a table with these columns, where that makes a difference."""
        return self

    def fitted(self, rows: Sequence[Row]) -> Task:
        """The task with what the training rows say of it: labels, weights. Raises UserError where that is too
        little."""
        return self

    @abstractmethod
    def encode(self, rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> list[Encoded]:
        """Rows as tokens, in order; labels are not looked at."""

    @abstractmethod
    def add_targets(self, encoded: Sequence[Encoded], rows: Sequence[Row]) -> list[Encoded]:
        """What `encode` made of these rows, with their labels as targets."""

    @abstractmethod
    def collate(self, encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
        """The targets of a batch made of these sequences, in this order; without labels what the head needs."""

    @abstractmethod
    def head(self, encoder: Encoder) -> Head:
        """A new head for this encoder."""

    @property
    def losses(self) -> tuple[str, ...]:
        """As `Objective.losses`."""
        return ("loss",)

    @abstractmethod
    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        """As `Objective.counts`."""

    @abstractmethod
    def sums(self, scores: Any, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `Objective.sums`."""

    def split(self, scores: Tensor, encoded: Sequence[Encoded]) -> list[np.ndarray]:
        """A batch's scores as float32 arrays, one a sequence."""
        return list(scores.float().cpu().numpy())

    @abstractmethod
    def decode(self, scores: Sequence[np.ndarray], encoded: Sequence[Encoded], row: Row) -> Any:
        """The prediction for one row, of the scores of its sequences."""

    def with_tuned_thresholds(self, predictions: Sequence[Any], rows: Sequence[Row]) -> Task:
        """The task with thresholds chosen on labelled rows; itself where it has none."""
        return self

    @abstractmethod
    def metrics(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, Any]:
        """Figures of merit; the first one, of which more is better, decides which checkpoint is the best."""

    @abstractmethod
    def describe(self, prediction: Any, row: Row, labelled: bool) -> dict[str, Any]:
        """A prediction as a line of a table: what was read, `predicted`, where it applies `probability` (of all that
        was predicted) or `least_probability` (of its least certain part); with `labelled` also `truth` and either
        `right`, True or False, or `error`, a distance."""


Options = TypeVar("Options")


def options_from_json(kind: type[Options], state: Mapping[str, Any]) -> Options:
    """A task's options out of a checkpoint; those it does not name keep their defaults."""
    given = state.get("options", {})
    known = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    return kind(
        **{key: tuple(value) if isinstance(value, list) else value for key, value in given.items() if key in known}
    )


def at_least_float32(scores: Tensor) -> Tensor:
    """Scores in float32 at least."""
    return scores if scores.dtype.itemsize > 4 else scores.float()


def softmax(scores: np.ndarray) -> np.ndarray:
    """Along the last axis, in float64."""
    exponentials = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True))
    result: np.ndarray = exponentials / exponentials.sum(-1, keepdims=True)
    return result
