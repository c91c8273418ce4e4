"""choose: which of several continuations goes with a text, as in SWAG (Devlin et al. 2018, section 4.4).

Each choice is read behind the text as a sequence of its own and given one number; a softmax over a row's choices
decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from bothways.data.encoded import Encoded, KeepWhole, join_segments
from bothways.data.tables import Row
from bothways.errors import UserError, command
from bothways.model.encoder import Encoder
from bothways.model.families import build_head
from bothways.model.heads import Head
from bothways.tasks.base import MASKED_LOGIT, Task, at_least_float32, options_from_json, softmax
from bothways.tasks.metrics import ratio
from bothways.tasks.results import Result
from bothways.text.lines import is_unicode
from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True, repr=False)
class Choice(Result):
    """The choice that goes with a text. index: of the likeliest, from 0. text: that choice. probabilities: of all
    choices, in order; they sum to 1."""

    index: int
    text: str
    probabilities: list[float]


@dataclass(frozen=True)
class ChooseOptions:
    """Columns of the table.

    choices_column: a list of texts; or choice_columns: a column for each. label_column: the number of the right one,
    from 0, or its text; what can be read as such a number is one.
    """

    text_column: str = "text"
    choices_column: str = "choices"
    choice_columns: tuple[str, ...] = ()
    label_column: str = "label"


@dataclass(frozen=True)
class ChooseTask(Task):
    """Cross-entropy over a row's choices. Rows have two choices or more, each its own number of them."""

    options: ChooseOptions = ChooseOptions()

    name: ClassVar[str] = "choose"
    Options: ClassVar[type] = ChooseOptions
    keep_whole: ClassVar[KeepWhole] = "row"
    example: ClassVar[Mapping[str, Any]] = {
        "text": "The router has no light.",
        "choices": ["It has no power.", "It is Tuesday."],
        "label": 0,
    }

    @property
    def reads_pairs(self) -> bool:
        return True

    @classmethod
    def make(cls, options: Any) -> ChooseTask:
        return cls(options)

    def columns(self, labelled: bool = True) -> dict[str, str]:
        options = self.options
        choices = options.choice_columns or (options.choices_column,)
        read = {options.text_column: "the text", **dict.fromkeys(choices, "what may follow it")}
        return {**read, **({options.label_column: "the number of the right one, from 0"} if labelled else {})}

    def choices(self, row: Row) -> list[str]:
        """The row's choices. Raises UserError for fewer than two, and for a choice that is no text."""
        options = self.options
        listed = [row.values.get(column) for column in options.choice_columns]
        found: list[Any] = listed or row.items(options.choices_column)
        bad = [
            choice for choice in found if not isinstance(choice, str) or not choice.strip() or not is_unicode(choice)
        ]
        if bad:
            raise UserError(f"{row.source}: a choice is {bad[0]!r}, expected a text")
        if len(found) < 2:
            where = ", ".join(options.choice_columns) or options.choices_column
            raise UserError(f"{row.source}: {len(found)} choices in {where}, expected two or more")
        return found

    def gold(self, row: Row) -> int:
        """The number of the right choice, from 0. Raises UserError where the label means none or several of them."""
        label, choices = row.label(self.options.label_column), [choice.strip() for choice in self.choices(row)]
        by_number = [n for n in range(len(choices)) if label == str(n)]
        meant = by_number or [n for n, choice in enumerate(choices) if label == choice]
        if len(meant) == 1:
            return meant[0]
        if meant:
            raise UserError(f"{row.source}: label {label!r} may mean the choices {', '.join(map(str, meant))}")
        raise UserError(
            f"{row.source}: label {label!r} is neither one of the {len(choices)} choices nor its number, "
            f"0 to {len(choices) - 1}"
        )

    def check(self, row: Row) -> None:
        row.text(self.options.text_column)
        self.gold(row)

    def to_json(self) -> dict[str, Any]:
        return {"task": self.name, "options": asdict(self.options)}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Self:
        if state.get("task") != cls.name:
            raise UserError(f"this model does not choose; make one with {command('finetune', 'choose')}")
        return cls(options_from_json(ChooseOptions, state))

    def encode(self, rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> list[Encoded]:
        pairs = [
            (n, row.text(self.options.text_column), choice)
            for n, row in enumerate(rows)
            for choice in self.choices(row)
        ]
        encoded = join_segments(tokenizer, [(text, choice) for _, text, choice in pairs], max_length)
        return [replace(sequence, row=number) for sequence, (number, _, _) in zip(encoded, pairs, strict=True)]

    def add_targets(self, encoded: Sequence[Encoded], rows: Sequence[Row]) -> list[Encoded]:
        """Targets `place`, the number of a sequence among its row's choices, and `label`, that of the right choice."""
        gold = [self.gold(row) for row in rows]
        marked, place = [], 0
        for n, sequence in enumerate(encoded):
            place = place + 1 if n and encoded[n - 1].row == sequence.row else 0
            targets = {"place": np.array(place), "label": np.array(gold[sequence.row])}
            marked.append(replace(sequence, targets=targets))
        return marked

    def collate(self, encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
        """labels `[rows]`: the number of the right choice of each row in the batch; choice_row and choice_place `[N]`:
        each sequence's row in the batch, and the number of its choice."""
        if "place" not in encoded[0].targets:
            return {}
        _, first, number = np.unique([sequence.row for sequence in encoded], return_index=True, return_inverse=True)
        labels = np.array([encoded[index].targets["label"] for index in first])
        places = np.array([sequence.targets["place"] for sequence in encoded])
        return {"labels": labels, "choice_row": number, "choice_place": places}

    def head(self, encoder: Encoder) -> Head:
        return build_head(encoder, "choice")

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        return dict.fromkeys(("loss", "accuracy"), len(targets["labels"]))

    def sums(self, scores: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """scores: logits `[N]`."""
        labels, places = targets["labels"], targets["choice_place"]
        table = at_least_float32(scores).new_full((len(labels), int(places.max()) + 1), MASKED_LOGIT)
        table = table.index_put((targets["choice_row"], places), at_least_float32(scores))
        return {
            "loss": F.cross_entropy(table, labels, reduction="sum"),
            "accuracy": (table.detach().argmax(-1) == labels).sum(),
        }

    def decode(self, scores: Sequence[np.ndarray], encoded: Sequence[Encoded], row: Row) -> Choice:
        probabilities = softmax(np.array(scores)).tolist()
        best = int(np.argmax(probabilities))
        return Choice(best, self.choices(row)[best], probabilities)

    def metrics(self, predictions: Sequence[Choice], rows: Sequence[Row]) -> dict[str, Any]:
        right = sum(choice.index == self.gold(row) for choice, row in zip(predictions, rows, strict=True))
        return {"accuracy": ratio(right, len(rows))}

    def describe(self, prediction: Choice, row: Row, labelled: bool) -> dict[str, Any]:
        described: dict[str, Any] = {
            "text": row.text(self.options.text_column),
            "predicted": prediction.text,
            "probability": prediction.probabilities[prediction.index],
        }
        if labelled:
            gold = self.gold(row)
            described |= {"truth": self.choices(row)[gold], "right": gold == prediction.index}
        return described
