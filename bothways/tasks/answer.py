"""answer: the span of a context that answers a question, or that there is none (Devlin et al. 2018, sections 4.2, 4.3).

The question is segment A, the context segment B. A context that is too long is read in windows; every token is scored
as the start and as the end of the answer, and `[CLS]` as both means that the window has none.
"""

from __future__ import annotations

import itertools
import re
import string
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from bothways.data.encoded import Encoded, assemble, token_windows
from bothways.data.tables import Row
from bothways.errors import TruncationWarning, UserError
from bothways.model.encoder import Encoder
from bothways.model.heads import Head, SpanHead
from bothways.tasks.base import Task, at_least_float32, options_from_json, softmax
from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Answer:
    """text: the answer, `context[start:end]`; empty, with start and end 0, where there is none.

    probability: of this answer among the alternatives, and no_answer_probability that there is none (0 for a model that
    was never trained on such questions): a softmax over the best spans of all windows, and no answer. alternatives: the
    next best spans. margin: score of the best span less that of no answer; with it `with_tuned_thresholds` finds the
    threshold.
    """

    text: str
    start: int
    end: int
    probability: float
    no_answer_probability: float = 0.0
    alternatives: tuple[Answer, ...] = ()
    margin: float = field(default=np.inf, repr=False)


@dataclass(frozen=True)
class AnswerOptions:
    """Columns of the table, and how contexts are read.

    answers_column: in jsonl and SQuAD json a list of {text, answer_start}, where one is enough to train and all count
    in evaluation; an empty list is a question without an answer. Elsewhere a text, whose first occurrence counts unless
    start_column says where it begins (in characters, from 0); an empty text is no answer. overlap: tokens that two
    windows of a long context share, at most half of a window. max_answer_length: in tokens.
    """

    question_column: str = "question"
    context_column: str = "context"
    answers_column: str = "answers"
    start_column: str = "answer_start"
    overlap: int = 128
    max_answer_length: int = 30

    def __post_init__(self) -> None:
        if self.overlap < 0 or self.max_answer_length < 1:
            raise UserError(
                f"--overlap {self.overlap} and --max-answer-length {self.max_answer_length}: expected at least 0 and 1"
            )


N_BEST = 20
QUESTION_TOKENS = 64  # as in google-research/bert's run_squad.py
NOTHING_FITS = -1e30
LOWEST_MARGIN = 1e6  # stands for a context without any span


@dataclass(frozen=True)
class AnswerTask(Task):
    """Cross-entropy of the start and of the end, each a choice among a window's tokens, halved.

    no_answer: whether training had questions without an answer. threshold: the margin over "no answer" from which the
    best span is given.
    """

    options: AnswerOptions = AnswerOptions()
    no_answer: bool = False
    threshold: float = 0.0

    name: ClassVar[str] = "answer"
    Options: ClassVar[type] = AnswerOptions
    example: ClassVar[Mapping[str, Any]] = {
        "question": "What does a red light mean?",
        "context": "A red light means that the fibre is unplugged.",
        "answers": [{"text": "the fibre is unplugged", "answer_start": 23}],
    }

    @classmethod
    def make(cls, options: Any) -> AnswerTask:
        return cls(options)

    def columns(self, labelled: bool = True) -> dict[str, str]:
        options = self.options
        read = {options.question_column: "the question", options.context_column: "where the answer may stand"}
        return {**read, **({options.answers_column: "the answers"} if labelled else {})}

    def truths(self, row: Row) -> list[tuple[int, int]]:
        """Start and end character of each answer in the context; none for a question without an answer.

        Raises UserError for an answer that does not stand where the row says, or nowhere.
        """
        context, column = row.text(self.options.context_column), self.options.answers_column
        value = row.values.get(column)
        if value is None and not row.values.get("is_impossible"):
            raise UserError(f"{row.source}: column {column!r} is missing")
        answers: list[Any]
        if isinstance(value, str):
            alone = {"text": value, "answer_start": row.values.get(self.options.start_column)}
            answers = [alone] if value else []
        elif isinstance(value, Mapping):
            answers = self._side_by_side(row, value)
        else:
            answers = [] if value is None else row.items(column)
        return [_locate(row, context, one) for one in answers]

    def _side_by_side(self, row: Row, answers: Mapping[str, Any]) -> list[Any]:
        """Answers as `datasets` keeps SQuAD's: a list of texts beside a list of starts."""
        both = [answers.get("text"), answers.get("answer_start")]
        lists = [list(one) for one in both if isinstance(one, list | tuple | np.ndarray)]
        if len(lists) != 2 or len(lists[0]) != len(lists[1]):
            raise UserError(
                f"{row.source}: column {self.options.answers_column!r} is {str(answers)[:60]}, expected lists of text "
                "and answer_start, as long as each other"
            )
        return [{"text": text, "answer_start": start} for text, start in zip(*lists, strict=True)]

    def check(self, row: Row) -> None:
        row.text(self.options.question_column)
        self.truths(row)

    def fitted(self, rows: Sequence[Row]) -> Self:
        without = sum(not self.truths(row) for row in rows)
        if without == len(rows):
            raise UserError(f"{rows[0].source}: no question has an answer")
        return replace(self, no_answer=without > 0)

    def to_json(self) -> dict[str, Any]:
        known = {"no_answer": self.no_answer, "threshold": self.threshold}
        return {"task": self.name, **known, "options": asdict(self.options)}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Self:
        if state.get("task") != cls.name:
            raise UserError("this model does not answer questions; make one with `bothways finetune answer`")
        # a model from elsewhere may have been trained on either kind; its own scores decide
        options = options_from_json(AnswerOptions, state)
        return cls(options, bool(state.get("no_answer", True)), float(state.get("threshold", 0.0)))

    def encode(self, rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> list[Encoded]:
        options = self.options
        questions = tokenizer.encode_batch([row.text(options.question_column).strip() for row in rows])
        texts = [row.text(options.context_column) for row in rows]
        distinct = list(dict.fromkeys(texts))  # a paragraph has several questions
        contexts = dict(zip(distinct, tokenizer.encode_batch(distinct, special_tokens=False), strict=True))
        longest = min(QUESTION_TOKENS, max_length // 2)
        encoded = []
        for number, (question, text) in enumerate(zip(questions, texts, strict=True)):
            asked, context = question[:longest], contexts[text]
            room = max_length - 3 - len(asked.input_ids)
            cut = len(question.input_ids) - len(asked.input_ids)
            for window in token_windows(len(context.input_ids), room, min(options.overlap, room // 2)):
                encoded.append(assemble(tokenizer, [asked, context[window]], row=number, truncated=cut))
                cut = 0
        return encoded

    def add_targets(self, encoded: Sequence[Encoded], rows: Sequence[Row]) -> list[Encoded]:
        """Targets `start` and `end`, the tokens of the window at which the first answer begins and ends; 0, `[CLS]`,
        where it does not stand whole in the window."""
        truths = [self.truths(row) for row in rows]
        marked: list[Encoded] = []
        nowhere = 0
        for number, group in itertools.groupby(encoded, lambda one: one.row):
            sequences = list(group)
            touched = [_touched(one, truths[number][:1]) for one in sequences]
            places = [one.offsets[tokens] for one, tokens in zip(sequences, touched, strict=True) if len(tokens)]
            lowest = min((place[0, 0] for place in places), default=0)
            highest = max((place[-1, 1] for place in places), default=0)
            complete = False
            for one, tokens in zip(sequences, touched, strict=True):
                whole = len(tokens) and one.offsets[tokens[0], 0] == lowest and one.offsets[tokens[-1], 1] == highest
                ends = (tokens[0], tokens[-1]) if whole else (0, 0)
                complete |= bool(whole)
                marked.append(replace(one, targets={"start": np.array(ends[0]), "end": np.array(ends[1])}))
            nowhere += bool(truths[number]) and not complete
        if nowhere:
            message = f"{nowhere:,} answers stand whole in no window and train as none (a larger --overlap may help)"
            warnings.warn(message, TruncationWarning, stacklevel=2)
        return marked

    def collate(self, encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
        if "start" not in encoded[0].targets:
            return {}
        lengths = np.array([len(one.input_ids) for one in encoded])
        spans = np.array([[one.targets["start"], one.targets["end"]] for one in encoded])
        return {"spans": spans, "span_lengths": lengths}

    def head(self, encoder: Encoder) -> Head:
        return SpanHead(encoder)

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        return dict.fromkeys(("loss", "accuracy"), 2 * len(targets["spans"]))

    def sums(self, scores: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """scores: logits `[T, 2]`. accuracy: of starts and ends."""
        spans, lengths = targets["spans"], targets["span_lengths"]
        longest = int(lengths.max())
        within = F.pad(at_least_float32(scores), (0, 0, 0, longest))  # every window can be read to the longest's length
        first = lengths.cumsum(0) - lengths
        places = scores.new_tensor(range(longest), dtype=lengths.dtype)
        padded = within[first[:, None] + places]
        padded = padded.masked_fill((places >= lengths[:, None])[..., None], NOTHING_FITS)
        logits = padded.transpose(1, 2).flatten(0, 1)  # [2N, longest]: start and end of each window
        return {
            "loss": F.cross_entropy(logits, spans.flatten(), reduction="sum"),
            "accuracy": (logits.detach().argmax(-1) == spans.flatten()).sum(),
        }

    def split(self, scores: Tensor, encoded: Sequence[Encoded]) -> list[np.ndarray]:
        ends = np.cumsum([len(one.input_ids) for one in encoded])
        return np.split(scores.float().cpu().numpy(), ends[:-1])

    def decode(self, scores: Sequence[np.ndarray], encoded: Sequence[Encoded], row: Row) -> Answer:
        """The best span of all windows; with `no_answer`, none where its margin is below the threshold."""
        context = row.text(self.options.context_column)
        found = [span for one, window in zip(scores, encoded, strict=True) for span in self._best(one, window)]
        found = list({(start, end): (score, start, end) for score, start, end in sorted(found)}.values())
        found = sorted(found, key=lambda span: -span[0])[:N_BEST]
        # windows that do not hold the answer say so; the one that is least sure of it decides
        none = min(float(one[0].sum()) for one in scores)
        if not found:
            return Answer("", 0, 0, 0.0, 1.0, margin=-np.inf)
        logits = np.array([score for score, _, _ in found] + ([none] if self.no_answer else []))
        probabilities = softmax(logits).tolist()
        margin = found[0][0] - none if self.no_answer else np.inf
        nothing = probabilities[-1] if self.no_answer else 0.0
        answers = [
            Answer(context[start:end], start, end, probability, nothing)
            for (_, start, end), probability in zip(found, probabilities, strict=False)
        ]
        if margin < self.threshold:
            return Answer("", 0, 0, nothing, nothing, tuple(answers), margin)
        return replace(answers[0], alternatives=tuple(answers[1:]), margin=margin)

    def _best(self, scores: np.ndarray, window: Encoded) -> list[tuple[float, int, int]]:
        """Score, start and end character of the best spans of a window."""
        tokens = context_tokens(window)
        if not len(tokens):
            return []
        longest = min(self.options.max_answer_length, len(tokens))
        starts, ends = scores[tokens, 0], scores[tokens, 1]
        sums = np.full((longest, len(tokens)), -np.inf, dtype=np.float32)  # by length less one, and start
        for more in range(longest):
            sums[more, : len(tokens) - more] = starts[: len(tokens) - more] + ends[more:]
        count = min(N_BEST, len(tokens))
        best = np.argpartition(-sums, count - 1, axis=None)[:count]
        length, first = np.divmod(best, len(tokens))
        begin, end = window.offsets[tokens[first], 0], window.offsets[tokens[first + length], 1]
        return list(zip(sums.flat[best].tolist(), begin.tolist(), end.tolist(), strict=True))

    def with_tuned_thresholds(self, predictions: Sequence[Answer], rows: Sequence[Row]) -> Self:
        """The threshold of the best F1 on these rows, as the SQuAD 2.0 script looks for it; 0 without questions of both
        kinds."""
        golds = [self._golds(row) for row in rows]
        if not self.no_answer or all(golds) or not any(golds):
            return self
        spans = [one.text or (one.alternatives[0].text if one.alternatives else "") for one in predictions]
        given = np.array([best_f1(span, gold) for span, gold in zip(spans, golds, strict=True)])
        withheld = np.array([float(not gold) for gold in golds])
        margins = np.array([max(one.margin, -LOWEST_MARGIN) for one in predictions])
        order = np.argsort(-margins, kind="stable")
        totals = withheld.sum() + np.concatenate([[0.0], np.cumsum((given - withheld)[order])])
        ordered = margins[order]
        between = np.concatenate([[ordered[0] + 1], (ordered[1:] + ordered[:-1]) / 2, [ordered[-1] - 1]])
        apart = np.concatenate([[True], ordered[1:] < ordered[:-1], [True]])
        totals = np.where(apart, totals, -1.0)
        best = np.flatnonzero(totals >= totals.max() - 1e-9)
        return replace(self, threshold=float(between[best[np.argmin(np.abs(between[best]))]]))

    def metrics(self, predictions: Sequence[Answer], rows: Sequence[Row]) -> dict[str, Any]:
        """f1 and exact_match, 0 to 1, and of questions with and without an answer apart, where both are there."""
        golds = [self._golds(row) for row in rows]
        pairs = list(zip([one.text for one in predictions], golds, strict=True))
        f1, exact = [best_f1(*pair) for pair in pairs], [best_exact(*pair) for pair in pairs]
        figures: dict[str, Any] = {"f1": float(np.mean(f1)), "exact_match": float(np.mean(exact))}
        having = np.array([bool(gold) for gold in golds])
        if having.any() and not having.all():
            figures["answerable_f1"] = float(np.mean(np.array(f1)[having]))
            figures["answerable_exact_match"] = float(np.mean(np.array(exact)[having]))
            figures["no_answer_accuracy"] = float(np.mean(np.array(exact)[~having]))
        return figures

    def _golds(self, row: Row) -> list[str]:
        context = row.text(self.options.context_column)
        return [context[start:end] for start, end in self.truths(row)]

    def describe(self, prediction: Answer, row: Row, labelled: bool) -> dict[str, Any]:
        described: dict[str, Any] = {
            "question": row.text(self.options.question_column),
            "predicted": prediction.text,
            "start": prediction.start,
            "end": prediction.end,
            "probability": prediction.probability,
        }
        if labelled:
            golds = self._golds(row)
            described |= {"truth": " | ".join(dict.fromkeys(golds)), "right": bool(best_exact(prediction.text, golds))}
        return described


def _locate(row: Row, context: str, answer: Any) -> tuple[int, int]:
    """Where an answer stands in the context, without the blanks around it."""
    text = answer.get("text") if isinstance(answer, Mapping) else answer
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{row.source}: an answer is {text!r}, expected a text")
    start = answer.get("answer_start") if isinstance(answer, Mapping) else None
    begin = _character(row, start)
    if begin is None:
        text = text.strip()
        begin = context.find(text)
    if begin < 0 or context[begin : begin + len(text)] != text:
        there = f" at character {begin}" if begin >= 0 else ""
        raise UserError(f"{row.source}: the answer {text[:60]!r} is not in its context{there}")
    return begin + len(text) - len(text.lstrip()), begin + len(text.rstrip())


def _character(row: Row, value: Any) -> int | None:
    """The number of a character, also as a table keeps it (text, or a float beside gaps); None where there is none."""
    if value is None or value == "" or value != value:
        return None
    if isinstance(value, str | float | np.integer) and not isinstance(value, bool):
        text = str(value).strip().removesuffix(".0")
        value = int(text) if text.isdecimal() and len(text) < 19 else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UserError(
            f"{row.source}: answer_start is {str(value)[:40]!a}, expected the number of a character, from 0"
        )
    return value


def _touched(window: Encoded, truths: Sequence[tuple[int, int]]) -> np.ndarray:
    """The tokens of a window that an answer has a character of."""
    tokens = context_tokens(window)
    if not truths:
        return tokens[:0]
    (begin, end), offsets = truths[0], window.offsets[tokens]
    return tokens[(offsets[:, 1] > begin) & (offsets[:, 0] < end)]


def context_tokens(window: Encoded) -> np.ndarray:
    """Which tokens of a window belong to the context."""
    return np.flatnonzero((window.token_type_ids == 1) & (window.offsets[:, 1] > window.offsets[:, 0]))


def normalise(text: str) -> str:
    """Lower-cased, without punctuation and the articles a, an, the, blanks made one: what SQuAD compares (Rajpurkar et
    al. 2016, section 6.1)."""
    kept = "".join(character for character in text.lower() if character not in _PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


_PUNCTUATION = frozenset(string.punctuation)


def _compared(golds: Sequence[str]) -> list[str]:
    """Answers that are something after normalisation; without any, the right answer is none."""
    return [gold for gold in golds if normalise(gold)] or [""]


def best_exact(predicted: str, golds: Sequence[str]) -> float:
    """1 where a gold answer is the predicted one, normalised, else 0. Source: SQuAD's evaluation script, v2.0."""
    return float(any(normalise(predicted) == normalise(gold) for gold in _compared(golds)))


def best_f1(predicted: str, golds: Sequence[str]) -> float:
    """The best overlap in words with a gold answer, 0 to 1. Source: SQuAD's evaluation script, v2.0."""
    return max(_f1(normalise(predicted).split(), normalise(gold).split()) for gold in _compared(golds))


def _f1(predicted: list[str], gold: list[str]) -> float:
    if not predicted or not gold:
        return float(predicted == gold)
    same = sum((Counter(predicted) & Counter(gold)).values())
    return 2 * same / (len(predicted) + len(gold))
