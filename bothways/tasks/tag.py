"""tag: a label for every word, and from the labels the entities (Devlin et al. 2018, section 5.3).

A word is labelled by its first piece, so an entity never begins or ends inside a word. A text of more tokens than the
model reads is read in windows, and each word is decided in the window where it has the most context around it.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from bothways.data.encoded import Encoded, assemble, token_windows
from bothways.data.tables import Row, as_label
from bothways.errors import UserError, closest
from bothways.model.encoder import Encoder
from bothways.model.heads import Head, TokenHead
from bothways.tasks.base import Task, at_least_float32, options_from_json, softmax
from bothways.tasks.metrics import classification_figures, span_figures, spans
from bothways.text.lines import is_unicode
from bothways.text.tokenizer import Pieces, Tokenizer

Scheme = Literal["auto", "BIO", "BIOES", "BILOU", "IO", "plain"]
OUTSIDE = "O"


@dataclass(frozen=True)
class Entity:
    """`text` is characters start to end of the text asked. probability: that of its least certain word."""

    label: str
    text: str
    start: int
    end: int
    probability: float


@dataclass(frozen=True)
class Tagging:
    """Of one text: a label, its probability, and the characters `(start, end)` of each word; and the entities, which
    are the words themselves where every word has a label of its own."""

    labels: list[str]
    probabilities: list[float]
    words: list[tuple[int, int]]
    entities: list[Entity]


@dataclass(frozen=True)
class TagOptions:
    """Columns of the table, and how labels mark entities.

    words_column and labels_column: lists of the same length, as CoNLL files give them; or text_column and spans_column,
    a text and a list of {start, end, label} in characters. scheme: BIO, BIOES, BILOU, IO (an entity's label or O), or
    plain (every word has a label, as a part of speech); `auto` sees it from the labels, and takes BIO for spans.
    overlap: tokens that two windows of a long text share, at most half of a window.
    """

    words_column: str = "words"
    labels_column: str = "labels"
    text_column: str = "text"
    spans_column: str = "spans"
    scheme: Scheme = "auto"
    overlap: int = 32

    def __post_init__(self) -> None:
        if self.overlap < 0:
            raise UserError(f"--overlap {self.overlap}: expected 0 or more tokens")


@dataclass(frozen=True)
class Words:
    """A row's text, where each of its words stands `(start, end)`, and their labels where it has them."""

    text: str
    places: list[tuple[int, int]]
    labels: list[str] | None = None


@dataclass(frozen=True)
class TagTask(Task):
    """Cross-entropy over the labels, a mean over words."""

    options: TagOptions = TagOptions()
    labels: tuple[str, ...] = ()

    name: ClassVar[str] = "tag"
    Options: ClassVar[type] = TagOptions
    example: ClassVar[Mapping[str, Any]] = {"words": ["Rome", "is", "old"], "labels": ["B-place", "O", "O"]}

    @classmethod
    def make(cls, options: Any) -> TagTask:
        return cls(options)

    def columns(self, labelled: bool = True) -> dict[str, str]:
        return {}  # words and labels, or a text and spans: `words` knows which

    def words(self, row: Row, labelled: bool = True) -> Words:
        """Raises UserError for labels that are not as many as words, spans outside the text, and empty texts."""
        options = self.options
        if row.values.get(options.words_column) is not None:
            return self._listed_words(row, labelled)
        if options.text_column not in row.values:
            raise UserError(
                f"{row.source}: neither a column {options.words_column!r} nor {options.text_column!r}; "
                f"columns present: {', '.join(map(str, row.values)) or 'none'}"
            )
        text = row.text(options.text_column)
        if labelled and options.spans_column not in row.values:
            raise UserError(
                f"{row.source}: no column {options.spans_column!r} with the entities of {options.text_column!r}; "
                f"columns present: {', '.join(map(str, row.values))}"
            )
        places = Tokenizer.words(text)
        return Words(text, places, self._span_labels(row, text, places) if labelled else None)

    def _listed_words(self, row: Row, labelled: bool) -> Words:
        options = self.options
        listed = row.items(options.words_column)
        bad = [word for word in listed if not isinstance(word, str) or not word or not is_unicode(word)]
        if bad or not listed:
            raise UserError(
                f"{row.source}: column {options.words_column!r} holds {bad[0]!r}, not a word"
                if bad
                else f"{row.source}: no words"
            )
        ends = np.cumsum([len(word) + 1 for word in listed]).tolist()
        places = [(end - len(word) - 1, end - 1) for word, end in zip(listed, ends, strict=True)]
        if not labelled:
            return Words(" ".join(listed), places)
        labels = row.items(options.labels_column)
        if len(labels) != len(listed):
            raise UserError(
                f"{row.source}: {len(listed)} words in {options.words_column!r}, "
                f"but {len(labels)} labels in {options.labels_column!r}"
            )
        place = f"{row.source}: column {options.labels_column!r}"
        return Words(" ".join(listed), places, [as_label(label, place) for label in labels])

    def _span_labels(self, row: Row, text: str, places: Sequence[tuple[int, int]]) -> list[str]:
        """Each word's label in the scheme; a word belongs to the span that it shares a character with."""
        labels = [OUTSIDE] * len(places)
        begins, ends = [a for a, _ in places], [b for _, b in places]
        taken: dict[int, str] = {}
        for span in row.items(self.options.spans_column):
            start, end, label = _span(row, span, len(text))
            inside = range(bisect.bisect_right(ends, start), bisect.bisect_left(begins, end))
            if not inside:
                raise UserError(f"{row.source}: the span {text[start:end]!r} holds no word")
            for n in inside:
                if n in taken:
                    raise UserError(f"{row.source}: the spans {taken[n]!r} and {text[start:end]!r} share a word")
                taken[n] = text[start:end]
                labels[n] = _marked(label, n == inside[0], n == inside[-1], self._scheme_of_spans)
        return labels

    @property
    def _scheme_of_spans(self) -> str:
        return "BIO" if self.options.scheme == "auto" else self.options.scheme

    @property
    def scheme(self) -> str:
        """How the labels mark entities."""
        return self.options.scheme if self.options.scheme != "auto" else scheme_of(self.labels)

    def check(self, row: Row) -> None:
        for label in self.words(row).labels or []:
            if self.labels and label not in self.labels:
                raise UserError(
                    f"{row.source}: label {label!r} was never seen in training{closest(label, self.labels)}; "
                    f"known: {', '.join(self.labels)}"
                )

    def fitted(self, rows: Sequence[Row]) -> Self:
        seen = sorted({label for row in rows for label in self.words(row).labels or []})
        if len(seen) < 2:
            raise UserError(f"{rows[0].source}: every word has the label {seen[0]!r}; tagging needs at least two")
        scheme = scheme_of(seen) if self.options.scheme == "auto" else self.options.scheme
        wrong = [label for label in seen if scheme in PREFIXES and not _follows(label, scheme)]
        if wrong:
            raise UserError(f"--scheme {scheme}: the label {wrong[0]!r} is none of it; {PREFIXES[scheme]} or O are")
        return replace(self, labels=tuple(seen))

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.name,
            "labels": list(self.labels),
            "options": {**asdict(self.options), "scheme": self.scheme},
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Self:
        if state.get("task") != cls.name or not state.get("labels"):
            raise UserError("this model does not tag words; make one with `bothways finetune tag`")
        return cls(options_from_json(TagOptions, state), tuple(state["labels"]))

    def encode(self, rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> list[Encoded]:
        """Targets `word_index`, the tokens that decide words, and `words`, the numbers of these words."""
        room = max_length - 2
        overlap = min(self.options.overlap, room // 2)
        found = [self.words(row, labelled=False) for row in rows]
        pieces = tokenizer.encode_batch([one.text for one in found], special_tokens=False)
        return [
            replace(assemble(tokenizer, [cut[window]], row=row), targets=targets)
            for row, (one, cut) in enumerate(zip(found, pieces, strict=True))
            for window, targets in _decided(_first_pieces(one.places, cut), len(cut.input_ids), room, overlap)
        ]

    def add_targets(self, encoded: Sequence[Encoded], rows: Sequence[Row]) -> list[Encoded]:
        number = {label: index for index, label in enumerate(self.labels)}
        labels = [np.array([number[label] for label in self.words(row).labels or []]) for row in rows]
        return [
            replace(one, targets={**one.targets, "labels": labels[one.row][one.targets["words"]]}) for one in encoded
        ]

    def collate(self, encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
        begins = np.cumsum([0, *(len(one.input_ids) for one in encoded[:-1])])
        rows = [one.targets["word_index"] + begin for one, begin in zip(encoded, begins, strict=True)]
        targets = {"word_index": np.concatenate(rows)}
        if "labels" in encoded[0].targets:
            targets["labels"] = np.concatenate([one.targets["labels"] for one in encoded])
        return targets

    def head(self, encoder: Encoder) -> Head:
        return TokenHead(encoder, len(self.labels))

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        return dict.fromkeys(("loss", "accuracy"), len(targets["labels"]))

    def sums(self, scores: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        labels = targets["labels"]
        return {
            "loss": F.cross_entropy(at_least_float32(scores), labels, reduction="sum"),
            "accuracy": (scores.detach().argmax(-1) == labels).sum(),
        }

    def split(self, scores: Tensor, encoded: Sequence[Encoded]) -> list[np.ndarray]:
        ends = np.cumsum([len(one.targets["word_index"]) for one in encoded])
        return np.split(scores.float().cpu().numpy(), ends[:-1])

    def decode(self, scores: Sequence[np.ndarray], encoded: Sequence[Encoded], row: Row) -> Tagging:
        """A word without a piece of its own (a control character, say) is outside of every entity, or, where every word
        has a label, has that of the word before it; its probability is 1."""
        found = self.words(row, labelled=False)
        best = np.full(len(found.places), -1)
        sure = np.ones(len(found.places))
        for one, window in zip(scores, encoded, strict=True):
            if len(one):
                probabilities = softmax(one)
                best[window.targets["words"]] = probabilities.argmax(-1)
                sure[window.targets["words"]] = probabilities.max(-1)
        labels: list[str] = []
        for index in best:
            unread = OUTSIDE if OUTSIDE in self.labels else (labels[-1] if labels else self.labels[0])
            labels.append(self.labels[index] if index >= 0 else unread)
        return Tagging(labels, sure.tolist(), found.places, self._entities(found, labels, sure))

    def _entities(self, found: Words, labels: Sequence[str], sure: np.ndarray) -> list[Entity]:
        entities = []
        words = [(label, n, n) for n, label in enumerate(labels)]
        for kind, first, last in words if self.scheme == "plain" else spans(tags_of(labels, self.scheme)):
            start, end = found.places[first][0], found.places[last][1]
            entities.append(Entity(kind, found.text[start:end], start, end, float(sure[first : last + 1].min())))
        return entities

    def metrics(self, predictions: Sequence[Tagging], rows: Sequence[Row]) -> dict[str, Any]:
        """Of entities f1, precision and recall, and by kind, with the accuracy over words; where every word has a
        label, accuracy, macro_f1, figures by label and the confusion matrix over words."""
        truth = [self.words(row).labels or [] for row in rows]
        guessed = [one.labels for one in predictions]
        words = [label for labels in truth for label in labels], [label for labels in guessed for label in labels]
        if self.scheme == "plain":
            return classification_figures(*words, self.labels)
        figures = span_figures(*([tags_of(labels, self.scheme) for labels in side] for side in (truth, guessed)))
        return {**figures, "accuracy": float(np.mean([a == b for a, b in zip(*words, strict=True)]))}

    def describe(self, prediction: Tagging, row: Row, labelled: bool) -> dict[str, Any]:
        words = self.words(row, labelled)
        described: dict[str, Any] = {
            "text": words.text,
            "predicted": self._written(words, prediction.labels),
            "least_probability": min(prediction.probabilities, default=1.0),
        }
        if labelled:
            truth = words.labels or []
            described |= {"truth": self._written(words, truth), "right": truth == prediction.labels}
        return described

    def _written(self, words: Words, labels: Sequence[str]) -> str:
        if self.scheme == "plain":
            return " ".join(f"{words.text[a:b]}/{label}" for (a, b), label in zip(words.places, labels, strict=True))
        found = spans(tags_of(labels, self.scheme))
        return "; ".join(f"{kind}: {words.text[words.places[a][0] : words.places[b][1]]}" for kind, a, b in found)


PREFIXES = {"BIO": "B-, I-", "BIOES": "B-, I-, E-, S-", "BILOU": "B-, I-, L-, U-"}
SAME = {"L": "E", "U": "S"}  # BILOU's last and unit by BIOES' names


def scheme_of(labels: Sequence[str]) -> str:
    """BIO, BIOES or BILOU where every label is O or has such a prefix, IO where others stand beside O, else plain."""
    for scheme in PREFIXES:
        if all(_follows(label, scheme) for label in labels):
            return scheme
    return "IO" if OUTSIDE in labels else "plain"


def _follows(label: str, scheme: str) -> bool:
    return label == OUTSIDE or (label[1:2] == "-" and f"{label[0]}-" in PREFIXES[scheme] and len(label) > 2)


def tags_of(labels: Sequence[str], scheme: str) -> Sequence[str]:
    """Labels that mark entities as B- I- E- S- O tags."""
    if scheme == "IO":
        return [label if label == OUTSIDE else f"I-{label}" for label in labels]
    return [SAME.get(label[0], label[0]) + label[1:] for label in labels] if scheme == "BILOU" else labels


def _marked(label: str, first: bool, last: bool, scheme: str) -> str:
    if scheme in ("IO", "plain"):
        return label
    if scheme in ("BIOES", "BILOU") and last:
        alone, end = ("S", "E") if scheme == "BIOES" else ("U", "L")
        return f"{alone}-{label}" if first else f"{end}-{label}"
    return f"B-{label}" if first else f"I-{label}"


def _span(row: Row, span: Any, length: int) -> tuple[int, int, str]:
    if not isinstance(span, Mapping) or not {"start", "end", "label"} <= set(span):
        raise UserError(f"{row.source}: a span is {span!r}, expected an object of start, end and label")
    start, end = span["start"], span["end"]
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= length):
        raise UserError(f"{row.source}: a span from {start!r} to {end!r} in a text of {length} characters")
    return start, end, as_label(span["label"], f"{row.source}: a span")


def _first_pieces(places: Sequence[tuple[int, int]], pieces: Pieces) -> np.ndarray:
    """The number of each word's first piece; -1 for a word without one."""
    starts = np.array([start for start, _ in places])
    word = np.searchsorted(starts, pieces.offsets[:, 0], side="right") - 1
    first = np.full(len(places), -1)
    words, index = np.unique(word, return_index=True)
    first[words[words >= 0]] = index[words >= 0]
    return first


def _decided(first: np.ndarray, length: int, room: int, overlap: int) -> list[tuple[slice, dict[str, np.ndarray]]]:
    """The windows over so many pieces, each with the words that it decides: those whose first piece is farther from the
    window's nearer edge than in any other window."""
    cut = token_windows(length, room, overlap)
    best, owner = np.full(len(first), -1), np.full(len(first), -1)
    order = np.argsort(first, kind="stable")
    places = first[order]
    for number, window in enumerate(cut):
        held = order[slice(*np.searchsorted(places, [window.start, window.stop]))]
        depth = np.minimum(first[held] - window.start, window.stop - 1 - first[held])
        owner[held[depth > best[held]]] = number
        best[held] = np.maximum(best[held], depth)
    by_owner = np.argsort(owner, kind="stable")
    words = np.split(by_owner, np.searchsorted(owner[by_owner], np.arange(len(cut))))[1:]  # those of none come first
    return [
        (window, {"word_index": first[own] - window.start + 1, "words": own})  # after [CLS]
        for window, own in zip(cut, words, strict=True)
    ]
