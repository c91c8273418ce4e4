"""tag: a label for every word, and from the labels the entities (Devlin et al. 2018, section 5.3).

A word is labelled by its first piece, so an entity never begins or ends inside a word. A text of more tokens than the
model reads is read in windows, and each word is decided in the window where it has the most context around it.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import torch.nn.functional as F
from torch import Tensor

from bothways.data.encoded import Encoded, assemble, token_windows
from bothways.data.tables import Row, as_label
from bothways.errors import UserError
from bothways.model.encoder import Encoder
from bothways.model.heads import Head, TokenHead
from bothways.tasks.base import ResultColumn, Task, at_least_float32, check_label, options_from_json, softmax
from bothways.tasks.entities import (
    OUTSIDE,
    PREFIXES,
    Entity,
    Scheme,
    entities_of,
    entity_words,
    label_in_scheme,
    prefixed_label,
    scheme_of,
    tags_of,
)
from bothways.tasks.metrics import classification_figures, span_figures
from bothways.text.lines import is_unicode
from bothways.text.tokenizer import Pieces, Tokenizer

ENTITY = pa.struct([
    ("label", pa.string()), ("text", pa.string()), ("start", pa.int32()), ("end", pa.int32()),
    ("probability", pa.float32()),
])  # fmt: skip
FIRST_PIECES = "word_rows"  # a sequence's target; a run's fingerprint has the name, so it stays as it was


@dataclass(frozen=True)
class Tagging:
    """The labels of a text. labels, probabilities, words: of each word its label, the label's probability, and its
    characters `(start, end)`. entities: what the labels mark; all words, where every word has a label of its own."""

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
    """A row's words. text: all of them. characters: where each stands in the text, `(start, end)`. labels: the gold
    label of each, where they were asked for."""

    text: str
    characters: list[tuple[int, int]]
    labels: list[str] | None = None


@dataclass(frozen=True)
class TagTask(Task):
    """Cross-entropy over the labels, a mean over words."""

    options: TagOptions = TagOptions()
    labels: tuple[str, ...] = ()

    name: ClassVar[str] = "tag"
    Options: ClassVar[type] = TagOptions
    example: ClassVar[Mapping[str, Any]] = {"words": ["Rome", "is", "old"], "labels": ["B-place", "O", "O"]}
    next_command: ClassVar[str] = 'tag {model} "a text of yours"'

    @classmethod
    def make(cls, options: Any) -> TagTask:
        return cls(options)

    def columns(self, labelled: bool = True) -> dict[str, str]:
        return {}  # words and labels, or a text and spans: `words` knows which

    def columns_to_predict(self, present: Collection[str]) -> list[str]:
        return [self.options.words_column if self.options.words_column in present else self.options.text_column]

    def words(self, row: Row, labelled: bool = True) -> Words:
        """The row's words, with `labelled` also their gold labels, out of words and labels or of a text and spans.

        Raises UserError for labels that are not as many as words, spans outside the text, and empty texts.
        """
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
        characters = Tokenizer.words(text)
        return Words(text, characters, self._span_labels(row, text, characters) if labelled else None)

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
        characters = [(end - len(word) - 1, end - 1) for word, end in zip(listed, ends, strict=True)]
        if not labelled:
            return Words(" ".join(listed), characters)
        labels = row.items(options.labels_column)
        if len(labels) != len(listed):
            raise UserError(
                f"{row.source}: {len(listed)} words in {options.words_column!r}, "
                f"but {len(labels)} labels in {options.labels_column!r}"
            )
        place = f"{row.source}: column {options.labels_column!r}"
        return Words(" ".join(listed), characters, [as_label(label, place) for label in labels])

    def _span_labels(self, row: Row, text: str, characters: Sequence[tuple[int, int]]) -> list[str]:
        """Each word's label in the scheme; a word belongs to the span that it shares a character with."""
        labels = [OUTSIDE] * len(characters)
        begins, ends = [a for a, _ in characters], [b for _, b in characters]
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
                labels[n] = prefixed_label(label, n == inside[0], n == inside[-1], self._scheme_of_spans)
        return labels

    @property
    def _scheme_of_spans(self) -> str:
        return "BIO" if self.options.scheme == "auto" else self.options.scheme

    @property
    def scheme(self) -> str:
        """How the labels mark entities."""
        return self.options.scheme if self.options.scheme != "auto" else scheme_of(self.labels)

    def check(self, row: Row) -> None:
        for label in self._gold(row):
            check_label(label, self.label_numbers, row.source)

    def _gold(self, row: Row) -> list[str]:
        return self.words(row).labels or []

    def fitted(self, rows: Sequence[Row]) -> Self:
        seen = sorted({label for row in rows for label in self._gold(row)})
        if len(seen) < 2:
            raise UserError(f"{rows[0].source}: every word has the label {seen[0]!r}; tagging needs at least two")
        scheme = scheme_of(seen) if self.options.scheme == "auto" else self.options.scheme
        wrong = [label for label in seen if scheme in PREFIXES and not label_in_scheme(label, scheme)]
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
        """Targets `FIRST_PIECES`, the tokens that decide words, and `words`, the numbers of these words in the row."""
        room = max_length - 2
        overlap = min(self.options.overlap, room // 2)
        found = [self.words(row, labelled=False) for row in rows]
        pieces = tokenizer.encode_batch([words.text for words in found], special_tokens=False)
        return [
            replace(assemble(tokenizer, [of_row[window]], row=number), targets=targets)
            for number, (words, of_row) in enumerate(zip(found, pieces, strict=True))
            for window, targets in _windows_with_words(
                _first_pieces(words.characters, of_row), len(of_row.input_ids), room, overlap
            )
        ]

    def add_targets(self, encoded: Sequence[Encoded], rows: Sequence[Row]) -> list[Encoded]:
        number = self.label_numbers
        gold = [np.array([number[label] for label in self._gold(row)]) for row in rows]
        return [
            replace(window, targets={**window.targets, "labels": gold[window.row][window.targets["words"]]})
            for window in encoded
        ]

    def collate(self, encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
        """word_index `[R]`: the first token of each word that a window decides; labels `[R]`: their gold labels."""
        begins = np.cumsum([0, *(len(window.input_ids) for window in encoded[:-1])])
        tokens = [window.targets[FIRST_PIECES] + begin for window, begin in zip(encoded, begins, strict=True)]
        targets = {"word_index": np.concatenate(tokens)}
        if "labels" in encoded[0].targets:
            targets["labels"] = np.concatenate([window.targets["labels"] for window in encoded])
        return targets

    def head(self, encoder: Encoder) -> Head:
        return TokenHead(encoder, len(self.labels))

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        return dict.fromkeys(("loss", "accuracy"), len(targets["labels"]))

    def sums(self, scores: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """scores: logits `[R, labels]`."""
        labels = targets["labels"]
        return {
            "loss": F.cross_entropy(at_least_float32(scores), labels, reduction="sum"),
            "accuracy": (scores.detach().argmax(-1) == labels).sum(),
        }

    def split(self, scores: Tensor, encoded: Sequence[Encoded]) -> list[np.ndarray]:
        ends = np.cumsum([len(window.targets[FIRST_PIECES]) for window in encoded])
        return np.split(scores.float().cpu().numpy(), ends[:-1])

    def decode(self, scores: Sequence[np.ndarray], encoded: Sequence[Encoded], row: Row) -> Tagging:
        """Every word's likeliest label, from the window that decides the word.

        A word without a piece of its own (a control character, say) is outside of every entity, or, where every word
        has a label, gets the label of the word before it; its probability is 1.
        """
        found = self.words(row, labelled=False)
        best = np.full(len(found.characters), -1)
        sure = np.ones(len(found.characters))
        for window_scores, window in zip(scores, encoded, strict=True):
            if len(window_scores):
                probabilities = softmax(window_scores)
                best[window.targets["words"]] = probabilities.argmax(-1)
                sure[window.targets["words"]] = probabilities.max(-1)
        labels: list[str] = []
        for index in best:
            unread = OUTSIDE if OUTSIDE in self.labels else (labels[-1] if labels else self.labels[0])
            labels.append(self.labels[index] if index >= 0 else unread)
        entities = entities_of(found.text, found.characters, labels, sure.tolist(), self.scheme)
        return Tagging(labels, sure.tolist(), found.characters, entities)

    def metrics(self, predictions: Sequence[Tagging], rows: Sequence[Row]) -> dict[str, Any]:
        """Of entities f1, precision and recall, and by kind, with the accuracy over words; where every word has a
        label, accuracy, macro_f1, figures by label and the confusion matrix over words."""
        gold = [self._gold(row) for row in rows]
        guessed = [prediction.labels for prediction in predictions]
        gold_words, guessed_words = list(itertools.chain(*gold)), list(itertools.chain(*guessed))
        if self.scheme == "plain":
            return classification_figures(gold_words, guessed_words, self.labels)
        figures = span_figures(
            [tags_of(labels, self.scheme) for labels in gold], [tags_of(labels, self.scheme) for labels in guessed]
        )
        right = [label == guess for label, guess in zip(gold_words, guessed_words, strict=True)]
        return {**figures, "accuracy": float(np.mean(right))}

    def describe(self, prediction: Tagging, row: Row, labelled: bool) -> dict[str, Any]:
        words = self.words(row, labelled)
        described: dict[str, Any] = {
            "text": words.text,
            "predicted": self._in_words(words, prediction.labels),
            "least_probability": min(prediction.probabilities, default=1.0),
        }
        if labelled:
            gold = words.labels or []
            described |= {"truth": self._in_words(words, gold), "right": gold == prediction.labels}
        return described

    def _in_words(self, words: Words, labels: Sequence[str]) -> str:
        if self.scheme == "plain":
            return " ".join(
                f"{words.text[a:b]}/{label}" for (a, b), label in zip(words.characters, labels, strict=True)
            )
        found = entity_words(tags_of(labels, self.scheme))
        return "; ".join(
            f"{kind}: {words.text[words.characters[first][0] : words.characters[last][1]]}"
            for kind, first, last in found
        )

    def result_columns(self) -> tuple[ResultColumn, ...]:
        entities = ResultColumn(
            "entities", pa.list_(ENTITY), lambda tagging: [asdict(entity) for entity in tagging.entities]
        )
        return (entities,)


def _span(row: Row, span: Any, length: int) -> tuple[int, int, str]:
    """Start, end and label of a span. Raises UserError for one that is not in a text of `length` characters."""
    if not isinstance(span, Mapping) or not {"start", "end", "label"} <= set(span):
        raise UserError(f"{row.source}: a span is {span!r}, expected an object of start, end and label")
    start, end = span["start"], span["end"]
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= length):
        raise UserError(f"{row.source}: a span from {start!r} to {end!r} in a text of {length} characters")
    return start, end, as_label(span["label"], f"{row.source}: a span")


def _first_pieces(characters: Sequence[tuple[int, int]], pieces: Pieces) -> np.ndarray:
    """The number of each word's first piece, int64 `[words]`; -1 for a word without a piece."""
    starts = np.array([start for start, _ in characters])
    word = np.searchsorted(starts, pieces.offsets[:, 0], side="right") - 1
    first = np.full(len(characters), -1)
    words, index = np.unique(word, return_index=True)
    first[words[words >= 0]] = index[words >= 0]
    return first


def _windows_with_words(
    first: np.ndarray, length: int, room: int, overlap: int
) -> list[tuple[slice, dict[str, np.ndarray]]]:
    """Windows over the pieces of a text and, for each, the words it labels, as targets of `TagTask.encode`.

    A word belongs to the window in which its first piece is farthest from an edge. With 10 pieces, room for 6 and an
    overlap of 2, a word a piece:

        piece        0 1 2 3 4 5 6 7 8 9
        window 0     0 1 2 2 1 0             distance to the nearer edge
        window 1             0 1 2 2 1 0     piece 4 is nearer to an edge here, piece 5 nearer there
        labelled by  0 0 0 0 0 1 1 1 1 1

    first: of each word the number of its first piece, -1 for a word without one, which no window labels. length:
    pieces. room: pieces of a window. overlap: pieces that neighbours share.
    """
    windows = token_windows(length, room, overlap)
    best_distance, owner = np.full(len(first), -1), np.full(len(first), -1)
    order = np.argsort(first, kind="stable")  # words by their first piece, so that a window's words are one slice
    sorted_first = first[order]
    for number, window in enumerate(windows):
        inside = order[slice(*np.searchsorted(sorted_first, [window.start, window.stop]))]
        distance = np.minimum(first[inside] - window.start, window.stop - 1 - first[inside])
        owner[inside[distance > best_distance[inside]]] = number
        best_distance[inside] = np.maximum(best_distance[inside], distance)
    by_owner = np.argsort(owner, kind="stable")  # words of no window come first, and are cut off
    words = np.split(by_owner, np.searchsorted(owner[by_owner], np.arange(len(windows))))[1:]
    return [
        (window, {FIRST_PIECES: first[own] - window.start + 1, "words": own})  # + 1: behind [CLS]
        for window, own in zip(windows, words, strict=True)
    ]
