"""answer: the span of a context that answers a question, or that there is none (Devlin et al. 2018, sections 4.2, 4.3).

The question is segment A, the context segment B. A context that is too long is read in windows; every token is scored
as the start and as the end of the answer, and `[CLS]` as both means that the window has none.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import torch.nn.functional as F
from torch import Tensor

from bothways.data.encoded import Encoded, assemble, token_windows
from bothways.data.tables import Row
from bothways.errors import TruncationWarning, UserError, command, option
from bothways.model.encoder import Encoder
from bothways.model.families import build_head
from bothways.model.heads import Head
from bothways.tasks.answer_rows import context_tokens, gold_spans, whole_gold_tokens, whole_words
from bothways.tasks.base import (
    MASKED_LOGIT,
    MarkedText,
    ResultColumn,
    SoftScores,
    Task,
    at_least_float32,
    options_from_json,
    softmax,
)
from bothways.tasks.results import Result
from bothways.tasks.soft_scores import divergence
from bothways.tasks.squad_metric import best_exact, best_f1
from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True, repr=False)
class Answer(Result):
    """The answer to a question. text: `context[start:end]`, whole words where blanks part words; empty, with start and
    end 0, where there is no answer.

    probability: of this answer among the alternatives, 0 to 1. no_answer_probability: that there is no answer, 0 for a
    model that was never trained on such questions. Both are of one softmax over the `N_BEST` best spans of all windows
    and no answer. alternatives: the next best spans. margin: the score of the best span less that of no answer, by
    which `with_tuned_thresholds` chooses the threshold.
    """

    text: str
    start: int
    end: int
    probability: float
    no_answer_probability: float = 0.0
    alternatives: tuple[Answer, ...] = field(default=(), repr=False)
    margin: float = field(default=np.inf, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """As `Result.to_dict`, without the margin, which is infinite where there is nothing to compare with, and with
        `alternatives` a list of the same, which have no others."""
        return {**self._span_dict(), "alternatives": [answer._span_dict() for answer in self.alternatives]}

    def _span_dict(self) -> dict[str, Any]:
        names = ("text", "start", "end", "probability", "no_answer_probability")
        return {name: getattr(self, name) for name in names}


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
                f"{option('overlap', self.overlap)} and {option('max_answer_length', self.max_answer_length)}: "
                "expected at least 0 and 1"
            )


N_BEST = 20  # spans kept of a row, as in google-research/bert's run_squad.py
QUESTION_TOKENS = 64  # of a question that are read, as there
LARGEST_MARGIN = 1e6  # stands for the infinite margin of a context without any span


@dataclass(frozen=True)
class AnswerTask(Task):
    """The mean of the cross-entropies of the start and of the end, each a choice among a window's tokens.

    no_answer: whether training had questions without an answer. threshold: the margin over "no answer", in logits, from
    which the best span is given.
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
    has_thresholds: ClassVar[bool] = True
    soft_scores: ClassVar[SoftScores | None] = "tokens"
    next_command: ClassVar[str] = 'answer {model} "a question" "a text that may hold the answer"'

    @property
    def reads_pairs(self) -> bool:
        return True

    @classmethod
    def make(cls, options: Any) -> AnswerTask:
        return cls(options)

    def columns(self, labelled: bool = True) -> dict[str, str]:
        options = self.options
        read = {options.question_column: "the question", options.context_column: "where the answer may stand"}
        return {**read, **({options.answers_column: "the answers"} if labelled else {})}

    def gold(self, row: Row) -> list[tuple[int, int]]:
        """The characters `(start, end)` of each gold answer in the context, as `gold_spans`."""
        options = self.options
        return gold_spans(row, options.context_column, options.answers_column, options.start_column)

    def check(self, row: Row) -> None:
        row.text(self.options.question_column)
        self.gold(row)

    def kept_together(self, row: Row) -> tuple[str, ...]:
        """The context, whatever is asked of it."""
        return (row.text(self.options.context_column),)

    def fitted(self, rows: Sequence[Row]) -> Self:
        without = sum(not self.gold(row) for row in rows)
        if without == len(rows):
            raise UserError(f"{rows[0].source}: no question has an answer")
        return replace(self, no_answer=without > 0)

    def to_json(self) -> dict[str, Any]:
        known = {"no_answer": self.no_answer, "threshold": self.threshold}
        return {"task": self.name, **known, "options": asdict(self.options)}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Self:
        if state.get("task") != cls.name:
            raise UserError(f"this model does not answer questions; make one with {command('finetune', 'answer')}")
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
            room = max_length - tokenizer.num_special_tokens(2) - len(asked.input_ids)
            cut = len(question.input_ids) - len(asked.input_ids)
            for window in token_windows(len(context.input_ids), room, min(options.overlap, room // 2)):
                encoded.append(assemble(tokenizer, [asked, context[window]], row=number, truncated=cut))
                cut = 0
        return encoded

    def add_targets(self, encoded: Sequence[Encoded], rows: Sequence[Row]) -> list[Encoded]:
        """Targets `start` and `end`, the tokens of the window at which the first gold answer begins and ends; 0,
        `[CLS]`, where it does not stand whole in the window. Warns of answers that stand whole in no window."""
        gold = [self.gold(row) for row in rows]
        marked: list[Encoded] = []
        nowhere = 0
        for number, group in itertools.groupby(encoded, lambda window: window.row):
            windows = list(group)
            found = whole_gold_tokens(windows, gold[number][0]) if gold[number] else [None] * len(windows)
            for window, tokens in zip(windows, found, strict=True):
                start, end = tokens or (0, 0)
                marked.append(replace(window, targets={"start": np.array(start), "end": np.array(end)}))
            nowhere += bool(gold[number]) and not any(found)
        if nowhere:
            cure = f"a larger {option('overlap')} may help"
            message = f"{nowhere:,} answers stand whole in no window and train as none ({cure})"
            warnings.warn(message, TruncationWarning, stacklevel=2)
        return marked

    def collate(self, encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
        """spans `[N, 2]`: first and last token of the answer, from each window's beginning; span_lengths `[N]`: tokens
        of each window."""
        if "start" not in encoded[0].targets:
            return {}
        lengths = np.array([len(window.input_ids) for window in encoded])
        spans = np.array([[window.targets["start"], window.targets["end"]] for window in encoded])
        return {"spans": spans, "span_lengths": lengths}

    def head(self, encoder: Encoder) -> Head:
        return build_head(encoder, "span")

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        return dict.fromkeys(("loss", "accuracy"), 2 * len(targets["spans"]))

    def sums(self, scores: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """scores: logits `[T, 2]`. accuracy: of starts and ends."""
        spans, logits = targets["spans"], _logits_by_window(scores, targets["span_lengths"])
        return {
            "loss": F.cross_entropy(logits, spans.flatten(), reduction="sum"),
            "accuracy": (logits.detach().argmax(-1) == spans.flatten()).sum(),
        }

    def soft_loss(self, scores: Tensor, targets: Mapping[str, Tensor], temperature: float) -> Tensor:
        ours, theirs = (_logits_by_window(of, targets["span_lengths"]) for of in (scores, targets["soft"]))
        return divergence(ours, theirs, temperature)

    def split(self, scores: Tensor, encoded: Sequence[Encoded]) -> list[np.ndarray]:
        ends = np.cumsum([len(window.input_ids) for window in encoded])
        return np.split(scores.float().cpu().numpy(), ends[:-1])

    def decode(self, scores: Sequence[np.ndarray], encoded: Sequence[Encoded], row: Row) -> Answer:
        """The best span of all windows; with `no_answer`, none where its margin is below the threshold."""
        context = row.text(self.options.context_column)
        both = zip(scores, encoded, strict=True)
        pieces = [span for window_scores, window in both for span in self._best_spans(window_scores, window)]
        whole = whole_words([(start, end) for _, start, end in pieces], context)
        found = [(score, *span) for (score, _, _), span in zip(pieces, whole, strict=True)]
        # a span that several windows hold, or that several spans within words become, counts once, with its best score
        found = list({(start, end): (score, start, end) for score, start, end in sorted(found)}.values())
        found = sorted(found, key=lambda span: -span[0])[:N_BEST]
        # windows that do not hold the answer say so; the one that is least sure of it decides
        none = min(float(window_scores[0].sum()) for window_scores in scores)
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

    def _best_spans(self, scores: np.ndarray, window: Encoded) -> list[tuple[float, int, int]]:
        """Score, start and end character of the best spans of a window. scores: `[tokens of the window, 2]`."""
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
        gold = [self._gold_texts(row) for row in rows]
        if not self.no_answer or all(gold) or not any(gold):
            return self
        spans = [answer.text or (answer.alternatives[0].text if answer.alternatives else "") for answer in predictions]
        given = np.array([best_f1(span, answers) for span, answers in zip(spans, gold, strict=True)])
        withheld = np.array([float(not answers) for answers in gold])
        margins = np.array([max(prediction.margin, -LARGEST_MARGIN) for prediction in predictions])
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
        gold = [self._gold_texts(row) for row in rows]
        pairs = list(zip([prediction.text for prediction in predictions], gold, strict=True))
        f1, exact = [best_f1(*pair) for pair in pairs], [best_exact(*pair) for pair in pairs]
        figures: dict[str, Any] = {"f1": float(np.mean(f1)), "exact_match": float(np.mean(exact))}
        having = np.array([bool(answers) for answers in gold])
        if having.any() and not having.all():
            figures["answerable_f1"] = float(np.mean(np.array(f1)[having]))
            figures["answerable_exact_match"] = float(np.mean(np.array(exact)[having]))
            figures["no_answer_accuracy"] = float(np.mean(np.array(exact)[~having]))
        return figures

    def _gold_texts(self, row: Row) -> list[str]:
        context = row.text(self.options.context_column)
        return [context[start:end] for start, end in self.gold(row)]

    def describe(self, prediction: Answer, row: Row, labelled: bool) -> dict[str, Any]:
        described: dict[str, Any] = {
            "question": row.text(self.options.question_column),
            "predicted": prediction.text,
            "start": prediction.start,
            "end": prediction.end,
            "probability": prediction.probability,
        }
        if labelled:
            gold = self._gold_texts(row)
            described |= {"truth": " | ".join(dict.fromkeys(gold)), "right": bool(best_exact(prediction.text, gold))}
        return described

    def marked(self, prediction: Answer, row: Row) -> MarkedText:
        """The context with the answer; of several gold answers all are true."""
        found = [(prediction.start, prediction.end, "")] if prediction.text else []
        true = [(start, end, "") for start, end in dict.fromkeys(self.gold(row))]
        right = bool(best_exact(prediction.text, self._gold_texts(row)))
        said = "" if found and true else " (answered, but there is no answer)" if found else " (not answered)"
        question = row.text(self.options.question_column)
        return MarkedText(row.text(self.options.context_column), found, true, right, question + said)

    def result_columns(self) -> tuple[ResultColumn, ...]:
        return (
            ResultColumn("predicted", pa.string(), lambda answer: answer.text),
            ResultColumn("start", pa.int32(), lambda answer: answer.start),
            ResultColumn("end", pa.int32(), lambda answer: answer.end),
            ResultColumn("probability", pa.float32(), lambda answer: answer.probability),
            ResultColumn("no_answer_probability", pa.float32(), lambda answer: answer.no_answer_probability),
        )


def _logits_by_window(scores: Tensor, lengths: Tensor) -> Tensor:
    """Logits `[T, 2]` of windows of these lengths, int64 `[N]`, as `[2N, longest]`: start and end of each window, which
    is filled up with `MASKED_LOGIT`."""
    longest = int(lengths.max())
    within = F.pad(at_least_float32(scores), (0, 0, 0, longest))  # every window can be read to the longest's length
    first = lengths.cumsum(0) - lengths
    places = scores.new_tensor(range(longest), dtype=lengths.dtype)
    padded = within[first[:, None] + places]
    padded = padded.masked_fill((places >= lengths[:, None])[..., None], MASKED_LOGIT)
    return padded.transpose(1, 2).flatten(0, 1)
