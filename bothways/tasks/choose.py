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
from bothways.errors import UserError
from bothways.model.encoder import Encoder
from bothways.model.heads import ChoiceHead, Head
from bothways.tasks.base import Task, at_least_float32, options_from_json, softmax
from bothways.tasks.metrics import ratio
from bothways.text.lines import is_unicode
from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Choice:
    """index: of the likeliest choice, from 0; text: that choice. probabilities: of all, in order; they sum to one."""

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
    """Cross-entropy over a row's choices, of which there are two or more, not everywhere as many."""

    options: ChooseOptions = ChooseOptions()

    name: ClassVar[str] = "choose"
    Options: ClassVar[type] = ChooseOptions
    keep_whole: ClassVar[KeepWhole] = "row"
    example: ClassVar[Mapping[str, Any]] = {
        "text": "The router has no light.",
        "choices": ["It has no power.", "It is Tuesday."],
        "label": 0,
    }

    @classmethod
    def make(cls, options: Any) -> ChooseTask:
        return cls(options)

    def columns(self, labelled: bool = True) -> dict[str, str]:
        options = self.options
        choices = options.choice_columns or (options.choices_column,)
        read = {options.text_column: "the text", **dict.fromkeys(choices, "what may follow it")}
        return {**read, **({options.label_column: "the number of the right one, from 0"} if labelled else {})}

    def choices(self, row: Row) -> list[str]:
        """The row's choices. Raises UserError for fewer than two, and for what is no text."""
        options = self.options
        found: list[Any] = [row.values.get(one) for one in options.choice_columns] or row.items(options.choices_column)
        bad = [one for one in found if not isinstance(one, str) or not one.strip() or not is_unicode(one)]
        if bad:
            raise UserError(f"{row.source}: a choice is {bad[0]!r}, expected a text")
        if len(found) < 2:
            where = ", ".join(options.choice_columns) or options.choices_column
            raise UserError(f"{row.source}: {len(found)} choices in {where}, expected two or more")
        return found

    def truth(self, row: Row) -> int:
        """The number of the right choice. Raises UserError where the label is none of them."""
        label, choices = row.label(self.options.label_column), [one.strip() for one in self.choices(row)]
        meant = [n for n in range(len(choices)) if label == str(n)] or [
            n for n, one in enumerate(choices) if label == one
        ]
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
        self.truth(row)

    def to_json(self) -> dict[str, Any]:
        return {"task": self.name, "options": asdict(self.options)}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Self:
        if state.get("task") != cls.name:
            raise UserError("this model does not choose; make one with `bothways finetune choose`")
        return cls(options_from_json(ChooseOptions, state))

    def encode(self, rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> list[Encoded]:
        pairs = [
            (n, row.text(self.options.text_column), choice)
            for n, row in enumerate(rows)
            for choice in self.choices(row)
        ]
        encoded = join_segments(tokenizer, [(text, choice) for _, text, choice in pairs], max_length)
        return [replace(one, row=number) for one, (number, _, _) in zip(encoded, pairs, strict=True)]

    def add_targets(self, encoded: Sequence[Encoded], rows: Sequence[Row]) -> list[Encoded]:
        """Targets `place`, which of its row's choices a sequence is, and `label`, the right one's."""
        right = [self.truth(row) for row in rows]
        marked, place = [], 0
        for n, one in enumerate(encoded):
            place = place + 1 if n and encoded[n - 1].row == one.row else 0
            marked.append(replace(one, targets={"place": np.array(place), "label": np.array(right[one.row])}))
        return marked

    def collate(self, encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
        """labels `[rows]`; choice_rows and choice_places `[N]`: each sequence's row in the batch, and place in it."""
        if "place" not in encoded[0].targets:
            return {}
        _, first, number = np.unique([one.row for one in encoded], return_index=True, return_inverse=True)
        labels = np.array([encoded[index].targets["label"] for index in first])
        places = np.array([one.targets["place"] for one in encoded])
        return {"labels": labels, "choice_rows": number, "choice_places": places}

    def head(self, encoder: Encoder) -> Head:
        return ChoiceHead(encoder)

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        return dict.fromkeys(("loss", "accuracy"), len(targets["labels"]))

    def sums(self, scores: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """scores: logits `[N]`."""
        labels, places = targets["labels"], targets["choice_places"]
        table = at_least_float32(scores).new_full((len(labels), int(places.max()) + 1), -1e30)
        table = table.index_put((targets["choice_rows"], places), at_least_float32(scores))
        return {
            "loss": F.cross_entropy(table, labels, reduction="sum"),
            "accuracy": (table.detach().argmax(-1) == labels).sum(),
        }

    def decode(self, scores: Sequence[np.ndarray], encoded: Sequence[Encoded], row: Row) -> Choice:
        probabilities = softmax(np.array(scores)).tolist()
        best = int(np.argmax(probabilities))
        return Choice(best, self.choices(row)[best], probabilities)

    def metrics(self, predictions: Sequence[Choice], rows: Sequence[Row]) -> dict[str, Any]:
        right = sum(one.index == self.truth(row) for one, row in zip(predictions, rows, strict=True))
        return {"accuracy": ratio(right, len(rows))}

    def describe(self, prediction: Choice, row: Row, labelled: bool) -> dict[str, Any]:
        described: dict[str, Any] = {
            "text": row.text(self.options.text_column),
            "predicted": prediction.text,
            "probability": prediction.probabilities[prediction.index],
        }
        if labelled:
            truth = self.truth(row)
            described |= {"truth": self.choices(row)[truth], "right": truth == prediction.index}
        return described
