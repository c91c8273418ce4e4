"""tag: a label for every word, and from the labels the entities (Devlin et al. 2018, section 5.3).

A word is labelled by its first piece, so an entity never begins or ends inside a word. A text of more tokens than the
model reads is read in windows, and each word is decided in the window where it has the most context around it.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import torch.nn.functional as F
from torch import Tensor

from bothways.data.encoded import Encoded, assemble
from bothways.data.tables import Row
from bothways.errors import UserError, command, option
from bothways.model.encoder import Encoder
from bothways.model.families import build_head
from bothways.model.heads import Head
from bothways.tasks.base import (
    MarkedText,
    ResultColumn,
    SoftScores,
    Task,
    at_least_float32,
    check_label,
    options_from_json,
    softmax,
)
from bothways.tasks.entities import (
    NO_WORD_LABELS,
    OUTSIDE,
    PREFIXES,
    Entity,
    Scheme,
    entities_of,
    entity_words,
    follows,
    label_in_scheme,
    scheme_of,
    tags_of,
)
from bothways.tasks.metrics import classification_figures, span_figures
from bothways.tasks.results import Result
from bothways.tasks.soft_scores import divergence
from bothways.tasks.tag_rows import Words, listed_words, text_words, warn_of_spans
from bothways.tasks.tag_windows import FIRST_PIECES, first_pieces, windows_with_words
from bothways.tasks.word_rule import WordRule
from bothways.text.tokenizer import Tokenizer

ENTITY = pa.struct([
    ("label", pa.string()), ("text", pa.string()), ("start", pa.int32()), ("end", pa.int32()),
    ("probability", pa.float32()),
])  # fmt: skip


@dataclass(frozen=True, repr=False)
class Tagging(Result):
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
    a text and a list of {start, end, label} in characters. scheme: BIO, BIOES, BILOU, BMES, BMEWO, IO (an entity's
    label or O), or plain (every word has a label, as a part of speech); `auto` sees it from the labels, and takes BIO
    for spans.
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
            raise UserError(f"{option('overlap', self.overlap)}: expected 0 or more tokens")


@dataclass(frozen=True)
class TagTask(Task):
    """Cross-entropy over the labels, a mean over words.

    word_rule: how a running text is cut into words, after training on listed ones; None after training on texts, whose
    words are the tokenizer's.
    """

    options: TagOptions = TagOptions()
    labels: tuple[str, ...] = ()
    word_rule: WordRule | None = None

    name: ClassVar[str] = "tag"
    Options: ClassVar[type] = TagOptions
    example: ClassVar[Mapping[str, Any]] = {"words": ["Rome", "is", "old"], "labels": ["B-place", "O", "O"]}
    soft_scores: ClassVar[SoftScores | None] = "tokens"
    next_command: ClassVar[str] = 'tag {model} "a text of yours"'

    @property
    def label_unit(self) -> str:
        return "words" if self.scheme == "plain" else "entities"

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
        if self._lists_words(row):
            return listed_words(row, options.words_column, options.labels_column if labelled else None)
        if options.text_column not in row.values:
            raise UserError(
                f"{row.source}: neither a column {options.words_column!r} nor {options.text_column!r}; "
                f"columns present: {', '.join(map(str, row.values)) or 'none'}"
            )
        if labelled and options.spans_column not in row.values:
            row.text(options.text_column)
            raise UserError(
                f"{row.source}: no column {options.spans_column!r} with the entities of {options.text_column!r}; "
                f"columns present: {', '.join(map(str, row.values))}"
            )
        spans_column = options.spans_column if labelled else None
        return text_words(row, options.text_column, spans_column, self.words_of_text, self._scheme_of_spans)

    def words_of_text(self, text: str) -> list[tuple[int, int]]:
        """Start and end character of each word of a running text, as training had words."""
        return Tokenizer.words(text) if self.word_rule is None else self.word_rule.words(text)

    def _lists_words(self, row: Row) -> bool:
        return row.values.get(self.options.words_column) is not None

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

    def labels_of(self, row: Row) -> tuple[str, ...]:
        return tuple(sorted({*self._gold(row)}))

    def fitted(self, rows: Sequence[Row]) -> Self:
        listed = [row.items(self.options.words_column) for row in rows if self._lists_words(row)]
        # what is learnt from lists holds for the texts among the rows too, so that there is one kind of word
        task = replace(self, word_rule=WordRule.learnt(listed) if listed else None)
        read = [(row.source, task.words(row)) for row in rows]
        seen = sorted({label for _, words in read for label in words.labels or ()})
        if len(seen) < 2:
            raise UserError(f"{rows[0].source}: every word has the label {seen[0]!r}; tagging needs at least two")
        if (stray := next(task._strays(read), None)) is not None:
            raise UserError(f"{stray[1]} ({option('skip_bad', True)} leaves such rows out)")
        task._warn_of_numbers(seen)
        warn_of_spans(read)
        return replace(task, labels=tuple(seen))

    def stray_rows(self, rows: Sequence[Row]) -> dict[int, str]:
        return {} if self.labels else dict(self._strays([(row.source, self.words(row)) for row in rows]))

    def _strays(self, read: Sequence[tuple[str, Words]]) -> Iterator[tuple[int, str]]:
        """The rows with a label that is none of the scheme, by their numbers, with what to say of the first such."""
        seen = sorted({label for _, words in read for label in words.labels or ()})
        scheme = scheme_of(seen) if self.options.scheme == "auto" else self.options.scheme
        if scheme not in PREFIXES or follows(seen, scheme):
            return
        for row, (source, words) in enumerate(read):
            labels = words.labels or []
            number = next((n for n, label in enumerate(labels) if not label_in_scheme(label, scheme)), None)
            if number is None:
                continue
            stray, (start, end) = labels[number], words.characters[number]
            place = f"{source}: word {number + 1}, {words.text[start:end]!r}, has the label {stray!r}"
            yield (
                row,
                f"{place} (nearly {scheme}: the other labels are {PREFIXES[scheme]} or O); correct it, or give "
                f"{option('scheme', 'IO')} where it is a kind of its own"
                if self.options.scheme == "auto"
                else f"{option('scheme', scheme)}: the label {stray!r} is none of it; {PREFIXES[scheme]} or O are; "
                f"{place}",
            )

    def _warn_of_numbers(self, seen: Sequence[str]) -> None:
        """Warns of labels that are numbers where every word has one."""
        scheme = scheme_of(seen) if self.options.scheme == "auto" else self.options.scheme
        if scheme == "plain" and all(label.lstrip("-").isdecimal() for label in seen):
            message = (
                f"the labels are numbers ({', '.join(seen[:3])}, …), so that every word has one and none marks an "
                "entity; give their names, such as O and B-PER, where they stand for entities"
            )
            warnings.warn(message, stacklevel=3)

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.name,
            "labels": list(self.labels),
            "options": {**asdict(self.options), "scheme": self.scheme},
            **({"words": self.word_rule.to_json()} if self.word_rule else {}),
        }

    def identity(self) -> dict[str, Any]:
        known = self.to_json()
        known.pop("words", None)  # follows from the rows; runs of before it was known go on
        return known

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Self:
        if state.get("task") != cls.name or not state.get("labels"):
            raise UserError(f"this model does not tag words; make one with {command('finetune', 'tag')}")
        # models from elsewhere were trained on listed words; ours of before this was kept are read as they were
        rule = WordRule.from_json(state["words"]) if "words" in state else None if "options" in state else WordRule()
        return cls(options_from_json(TagOptions, state), tuple(state["labels"]), rule)

    def encode(self, rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> list[Encoded]:
        """Targets `FIRST_PIECES`, the tokens that decide words, and `words`, the numbers of these words in the row."""
        room, before = max_length - tokenizer.num_special_tokens(1), len(tokenizer.template.prefix)
        overlap = min(self.options.overlap, room // 2)
        found = [self.words(row, labelled=False) for row in rows]
        pieces = tokenizer.encode_batch([words.text for words in found], special_tokens=False)
        return [
            replace(
                assemble(tokenizer, [of_row[window]], row=number),
                targets={**targets, FIRST_PIECES: targets[FIRST_PIECES] + before},
            )
            for number, (words, of_row) in enumerate(zip(found, pieces, strict=True))
            for window, targets in windows_with_words(
                first_pieces(words.characters, of_row), len(of_row.input_ids), room, overlap
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
        return build_head(encoder, "token", len(self.labels))

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        return dict.fromkeys(("loss", "accuracy"), len(targets["labels"]))

    def sums(self, scores: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """scores: logits `[R, labels]`."""
        labels = targets["labels"]
        return {
            "loss": F.cross_entropy(at_least_float32(scores), labels, reduction="sum"),
            "accuracy": (scores.detach().argmax(-1) == labels).sum(),
        }

    def soft_loss(self, scores: Tensor, targets: Mapping[str, Tensor], temperature: float) -> Tensor:
        return divergence(scores, targets["soft"], temperature)

    def split(self, scores: Tensor, encoded: Sequence[Encoded]) -> list[np.ndarray]:
        ends = np.cumsum([len(window.targets[FIRST_PIECES]) for window in encoded])
        return np.split(scores.float().cpu().numpy(), ends[:-1])

    def decode(self, scores: Sequence[np.ndarray], encoded: Sequence[Encoded], row: Row) -> Tagging:
        """Every word's likeliest label, from the window that decides the word, of those that words have.

        A word without a piece of its own (a control character, say) is outside of every entity, or, where every word
        has a label, gets the label of the word before it; its probability is 1.
        """
        found = self.words(row, labelled=False)
        best = np.full(len(found.characters), -1)
        sure = np.ones(len(found.characters))
        scheme = self.scheme
        foreign = NO_WORD_LABELS if scheme in PREFIXES else ()
        columns = np.array([number for number, label in enumerate(self.labels) if label not in foreign])
        for window_scores, window in zip(scores, encoded, strict=True):
            if len(window_scores):
                probabilities = softmax(window_scores[:, columns])
                best[window.targets["words"]] = columns[probabilities.argmax(-1)]
                sure[window.targets["words"]] = probabilities.max(-1)
        labels: list[str] = []
        for index in best:
            unread = OUTSIDE if OUTSIDE in self.labels else (labels[-1] if labels else self.labels[0])
            labels.append(self.labels[index] if index >= 0 else unread)
        entities = entities_of(found.text, found.characters, labels, sure.tolist(), scheme)
        return Tagging(labels, sure.tolist(), found.characters, entities)

    def metrics(self, predictions: Sequence[Tagging], rows: Sequence[Row]) -> dict[str, Any]:
        """Of entities f1, precision and recall, and by kind, with the accuracy over words; where every word has a
        label, accuracy, macro_f1, figures by label and the confusion matrix over words."""
        read = [(row.source, self.words(row)) for row in rows]
        warn_of_spans(read)
        gold = [words.labels or [] for _, words in read]
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

    def marked(self, prediction: Tagging, row: Row) -> MarkedText | None:
        """The text with its entities; None where every word has a label."""
        if self.scheme == "plain":
            return None
        words = self.words(row, labelled=True)
        gold = words.labels or []
        found = [(entity.start, entity.end, entity.label) for entity in prediction.entities]
        true = [
            (words.characters[first][0], words.characters[last][1], kind)
            for kind, first, last in entity_words(tags_of(gold, self.scheme))
        ]
        return MarkedText(words.text, found, true, gold == prediction.labels)

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
