"""What the train loop, the evaluator, the predictor and the command line know of a task.

An `Objective` is what can be trained: a head, and loss sums with their counts. A `Task` is an objective on labelled
rows: it also knows how a row becomes tokens and how scores become a prediction. Pretraining's objectives are the lines
of `tasks.objectives.OBJECTIVES`; each task a user fine-tunes for is one file in this folder and one line in
`tasks.TASKS`. CONTRIBUTING.md shows how to add one of either.

A task's row goes this way, and the methods stand in this order:

    row -> check -> encode -> add_targets -> collate -> head -> counts, sums          training
    row ->          encode ->                collate -> head -> split -> decode       prediction, then metrics, describe

Shapes: T tokens and N sequences of a batch, R tokens that a head reads, H hidden.
"""

from __future__ import annotations

import functools
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, Protocol, Self, TypeVar, get_type_hints

import numpy as np
import pyarrow as pa
from torch import Tensor

from bothways.data.encoded import Encoded, KeepWhole
from bothways.data.tables import Row
from bothways.errors import UserError, closest, option
from bothways.model.config import EncoderConfig
from bothways.model.encoder import Encoder
from bothways.model.heads import Head, Model
from bothways.option_checks import require_type
from bothways.text.tokenizer import Tokenizer

SoftScores = Literal["texts", "tokens"]  # a teacher scores texts as it reads them, or the student's very tokens


class Objective(Protocol):
    """What the train loop knows."""

    @property
    def losses(self) -> tuple[str, ...]:
        """The names out of `sums` that are minimised: the loss of a step is the sum of their means."""
        ...

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """By which of the losses' means are multiplied in the sum; the others by 1."""
        ...

    def head(self, encoder: Encoder) -> Head:
        """A new head for this encoder."""
        ...

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        """How many targets each sum of `sums` runs over, by the same names; with weighted targets, their weight.

        Counts are known before the forward pass, so that a loss is divided by the count of the whole step, over all
        micro-batches and processes.
        """
        ...

    def sums(self, scores: Any, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums over the batch's targets, by name: scalars `[]`. Those named in `losses` carry the gradient.

        scores: what `head` returns for the batch. targets: as the batch has them, tensors on the model's device.
        """
        ...


@dataclass(frozen=True)
class ResultColumn:
    """A column that predictions add to a large table.

    name: of the column. type: its Arrow type. value: what of a prediction stands in the column.
    """

    name: str
    type: pa.DataType
    value: Callable[[Any], Any]


@dataclass(frozen=True)
class MarkedText:
    """A text in which a prediction marks parts. found, true: what it marks and what is true, each part as (first
    character, the one behind the last, label). right: whether the prediction counts as right. about: what was asked of
    the text, if anything."""

    text: str
    found: Sequence[tuple[int, int, str]]
    true: Sequence[tuple[int, int, str]]
    right: bool
    about: str = ""


class Task(ABC):
    """An `Objective` on labelled rows: what evaluator, predictor and command line know besides.

    A task is immutable, a frozen dataclass whose first field is `options`. `make` builds it from its options alone,
    `fitted` returns a task that knows the labels, and `with_tuned_thresholds` one that knows its thresholds; `to_json`
    and `from_json` keep all of it in a checkpoint.
    """

    name: ClassVar[str]
    example: ClassVar[Mapping[str, Any]]  # a row, for errors and documentation
    Options: ClassVar[type]  # a frozen dataclass; the names of its options for columns end in `_column`
    next_command: ClassVar[str] = "predict {model} {table}"  # what to type after training, {table}: the rows given
    labels: tuple[str, ...] = ()  # in the order of the head's outputs; empty for tasks without labels
    has_thresholds: ClassVar[bool] = False  # whether `with_tuned_thresholds` chooses any
    cut_at: ClassVar[str] = "end"  # where a text that is too long loses tokens
    soft_scores: ClassVar[SoftScores | None] = None  # what a teacher's scores are of; None where none can teach
    keep_whole: ClassVar[KeepWhole] = "sequence"  # what the loss needs in one batch: a sequence, a row, the whole step
    keeps_vectors: ClassVar[bool] = False  # whether a model that gives vectors is trained with its own head

    @property
    def losses(self) -> tuple[str, ...]:
        """As `Objective.losses`."""
        return ("loss",)

    @property
    def label_unit(self) -> str:
        """What the figures by label count: rows, words or entities."""
        return "rows"

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """As `Objective.loss_weights`."""
        return {}

    @functools.cached_property
    def label_numbers(self) -> dict[str, int]:
        """The number of each label, by which the head's outputs are counted."""
        return {label: number for number, label in enumerate(self.labels)}

    @property
    def reads_pairs(self) -> bool:
        """Whether its texts are pairs, which a model that was trained for it has seen then."""
        return False

    @classmethod
    @abstractmethod
    def make(cls, options: Any) -> Task:
        """The task for an instance of `Options`."""

    @classmethod
    @abstractmethod
    def from_json(cls, state: Mapping[str, Any]) -> Task:
        """The task that `to_json` described. Raises UserError for the state of another task's model."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """What `bothways.json` must keep to build this task again; `task` is its name."""

    def with_model(self, model: Model, metadata: Mapping[str, Any]) -> Self:
        """The task as it is learnt by a model, whose head it may exchange. metadata: of the model's checkpoint."""
        return self

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share of the task, as JSON: by default all that `to_json` keeps."""
        return self.to_json()

    @abstractmethod
    def columns(self, labelled: bool = True) -> Mapping[str, str]:
        """The columns that a row must have, each with what it holds; `labelled`: with those of the gold labels."""

    def columns_to_predict(self, present: Collection[str]) -> list[str]:
        """The columns that a prediction reads out of a table with the columns `present`."""
        return list(self.columns(labelled=False))

    def with_options(self, **values: Any) -> Self:
        """The task with some options changed."""
        task: Any = self
        changed: Self = replace(task, options=replace(task.options, **values))
        return changed

    def with_columns(self, names: Mapping[str, str]) -> Self:
        """The task with other columns, by option: `{"text_column": "body"}`. Raises UserError for an option that this
        task does not have."""
        for name in names:
            if name not in {field.name for field in fields(self.Options)}:
                raise UserError(f"{option(name)}: {self.name} has no such column")
        return self.with_options(**names)

    def for_columns(self, columns: Collection[str]) -> Task:
        """The task for a table with these columns, where that makes a difference."""
        return self

    def fitted(self, rows: Sequence[Row]) -> Task:
        """The task with the labels, weights and ranges that the training rows have. Raises UserError for rows that
        nothing can be learnt from."""
        return self

    @abstractmethod
    def check(self, row: Row) -> None:
        """Raises UserError, naming the row, for a labelled row that cannot be used."""

    def stray_rows(self, rows: Sequence[Row]) -> dict[int, str]:
        """The training rows whose labels cannot be beside those of the others, by their number in `rows`, each with the
        reason; empty where labels say nothing of each other."""
        return {}

    def advice(self, rows: Sequence[Row]) -> str | None:
        """What a user should think of before training on these rows, as a line; None where all looks well."""
        return None

    def labels_of(self, row: Row) -> tuple[str, ...]:
        """The labels of a row that training must have seen, where rows are held out to measure on."""
        return ()

    def kept_together(self, row: Row) -> tuple[str, ...]:
        """The texts that a row of the other part must not share, where rows are held out: here all it reads, as one."""
        return (" ".join(leaf_texts([row.values.get(column) for column in self.columns_to_predict(row.values)])),)

    @abstractmethod
    def encode(self, rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> list[Encoded]:
        """Rows as sequences of at most `max_length` tokens, a row's sequences together, in the order of the rows.

        Labels are not read. `Encoded.row` is the number of the row in `rows`.
        """

    @abstractmethod
    def add_targets(self, encoded: Sequence[Encoded], rows: Sequence[Row]) -> list[Encoded]:
        """The sequences that `encode` made of these rows, with the gold labels as targets: arrays of one sequence."""

    @abstractmethod
    def collate(self, encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
        """The targets of a batch of these N sequences, in this order; of sequences without gold labels only what the
        head needs. An index into tokens counts the tokens of the batch, 0 to T - 1."""

    def targets_as_json(self, targets: Mapping[str, np.ndarray]) -> str:
        """A sequence's targets as text, by which a resumed run knows its rows."""
        return json.dumps({name: value.tolist() for name, value in targets.items()})

    @abstractmethod
    def head(self, encoder: Encoder) -> Head:
        """A new head for this encoder, from `model.heads` or the task's own file."""

    @abstractmethod
    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        """As `Objective.counts`."""

    @abstractmethod
    def sums(self, scores: Any, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `Objective.sums`."""

    def soft_targets(self, scores: Sequence[np.ndarray]) -> list[np.ndarray]:
        """A teacher's scores of one row, as `split` cut them, as the target `soft` of each of the row's sequences:
        arrays whose first axis runs over what is put one behind the other in a batch."""
        return list(scores)

    def soft_count(self, targets: Mapping[str, Tensor]) -> float:
        """How many targets `soft_loss` runs over."""
        return self.counts(targets)["loss"]

    def soft_loss(self, scores: Any, targets: Mapping[str, Tensor], temperature: float) -> Tensor:
        """How far the scores are from the teacher's, `targets["soft"]`, both divided by the temperature: a sum, `[]`,
        for tasks with `soft_scores`."""
        raise NotImplementedError

    def split(self, scores: Any, encoded: Sequence[Encoded]) -> list[np.ndarray]:
        """A batch's scores as float32 arrays, one for each of its N sequences; here scores are a tensor `[N, …]`."""
        return list(scores.float().cpu().numpy())

    @abstractmethod
    def decode(self, scores: Sequence[np.ndarray], encoded: Sequence[Encoded], row: Row) -> Any:
        """The prediction for one row, from the scores of its sequences, as `split` cut them."""

    def condensed(self, prediction: Any) -> Any:
        """The prediction without what `metrics`, `describe` and `result_columns` do not read, the scores of labels that
        were not given, say. Where there are many rows, this is what is kept."""
        return prediction

    def with_tuned_thresholds(self, predictions: Sequence[Any], rows: Sequence[Row]) -> Task:
        """The task with thresholds chosen on labelled rows; itself where it has no thresholds."""
        return self

    @abstractmethod
    def metrics(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, Any]:
        """Figures of merit over labelled rows. The first decides which checkpoint is the best: more is better."""

    @abstractmethod
    def describe(self, prediction: Any, row: Row, labelled: bool) -> dict[str, Any]:
        """A prediction as a line of a table: the text that was read, `predicted`, and where it applies `probability`
        (of the whole prediction) or `least_probability` (of its least certain part). With `labelled` also `truth`, the
        gold label, and either `right`, True or False, or `error`, a distance."""

    def marked(self, prediction: Any, row: Row) -> MarkedText | None:
        """A labelled row's text with the parts that the prediction marks; None for tasks that mark none."""
        return None

    def result_columns(self) -> tuple[ResultColumn, ...]:
        """The columns that a prediction adds to a large table (`--in TABLE --out FILE`).

        Raises UserError for a task that has none.
        """
        raise UserError(f"{self.name}: has no columns for a large table; `predict` writes its predictions")


_Options = TypeVar("_Options")
MAX_NAMES_SHOWN = 20  # of labels in a message, which is to stay a line
MASKED_LOGIT = -1e30  # of a place that does not exist, so that a softmax gives it nothing


def leaf_texts(value: Any) -> Iterator[str]:
    """The texts in a value, one or several in lists and dictionaries, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from leaf_texts(list(value.values()))
    elif isinstance(value, list | tuple | np.ndarray):
        for item in value:
            yield from leaf_texts(item)


# a task is made for each call, and hints are compiled anew each time
_hints_of: Callable[[Any], dict[str, Any]] = functools.cache(get_type_hints)


def options_from_json(kind: type[_Options], state: Mapping[str, Any]) -> _Options:
    """A task's options from a checkpoint's JSON; options that it does not name keep their defaults.

    Raises UserError for a value of another type.
    """
    given = state.get("options", {})
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    named = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items() if key in known}
    hints = _hints_of(kind)
    for name, value in named.items():
        require_type(f"bothways.json: the option {name}", value, hints[name])
    return kind(**named)


def require_segment_types(config: EncoderConfig, source: str) -> None:
    """Raises UserError for a model with one segment type, which cannot read pairs whose segments are numbered. source:
    how messages call it."""
    if config.type_vocab_size < 2 and "type_vocab_size" not in config.keys:
        raise UserError(f"{source}: one segment type only (type_vocab_size 1), so it cannot read pairs")


def check_label(label: str, known: Collection[str], source: str) -> None:
    """Raises UserError, naming the row's source, for a label that is not known; before training every label is.

    known: the labels, a mapping or set where there are many.
    """
    if known and label not in known:
        raise UserError(
            f"{source}: label {label!r} was never seen in training{closest(label, known)}; known: "
            f"{shortened_list(known)}"
        )


def shortened_list(names: Collection[str]) -> str:
    """Names with commas, the first `MAX_NAMES_SHOWN` of them."""
    more = len(names) - MAX_NAMES_SHOWN
    return ", ".join(itertools.islice(names, MAX_NAMES_SHOWN)) + (f" and {more:,} more" if more > 0 else "")


def at_least_float32(scores: Tensor) -> Tensor:
    """The same scores, in float32 where they were narrower."""
    return scores if scores.dtype.itemsize > 4 else scores.float()


def softmax(scores: np.ndarray) -> np.ndarray:
    """The softmax along the last axis, in float64: `[…, K]` → `[…, K]`."""
    exponentials = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True))
    result: np.ndarray = exponentials / exponentials.sum(-1, keepdims=True)
    return result
