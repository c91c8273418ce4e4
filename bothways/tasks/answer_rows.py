"""Where the gold answers of a row stand: in the characters of its context, and in the tokens of its windows."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bothways.data.encoded import Encoded
from bothways.data.tables import Row
from bothways.errors import UserError
from bothways.text.json_rows import given_answers
from bothways.text.places import other_unit
from bothways.text.tokenizer import Tokenizer

# Thai, Lao, Tibetan, Myanmar, Khmer, kana and Hangul; Chinese characters are words one by one anyway.
_UNPARTED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\uac00-\ud7af\uff66-\uff9f]"
)
Span = tuple[int, int]  # first and one past the last character; or first and last token


def gold_spans(row: Row, context_column: str, answers_column: str, start_column: str) -> list[Span]:
    """The characters `(start, end)` of each gold answer in the context; none for a question without an answer.

    The answers are a list of {text, answer_start} or of texts, lists of both side by side, or one text, whose start is
    in `start_column`. An answer without a start is looked for. An answer of an empty text says that there is none, as
    several copies of SQuAD 2.0 have it; beside other answers it is not counted, as in SQuAD's own script.
    Raises UserError for an answer that does not stand where the row says, or nowhere.
    """
    context, value = row.text(context_column), row.values.get(answers_column)
    impossible = row.values.get("is_impossible")
    if value is None and not impossible:
        raise UserError(f"{row.source}: column {answers_column!r} is missing")
    answers: list[Any]
    if isinstance(value, str):
        answers = [{"text": value, "answer_start": row.values.get(start_column)}]
    elif isinstance(value, Mapping):
        answers = _side_by_side(row, answers_column, value)
    else:
        answers = [] if value is None else row.items(answers_column)
    answers = given_answers(answers)
    if answers and isinstance(impossible, bool | np.bool_) and impossible:
        raise UserError(f"{row.source}: is_impossible is True beside answers {str(answers)[:60]}")
    return [_locate(row, context, answer) for answer in answers]


def _side_by_side(row: Row, answers_column: str, answers: Mapping[str, Any]) -> list[Any]:
    """Answers as `datasets` keeps SQuAD's: a list of texts beside a list of starts."""
    columns = [answers.get("text"), answers.get("answer_start")]
    lists = [list(column) for column in columns if isinstance(column, list | tuple | np.ndarray)]
    if len(lists) != 2 or len(lists[0]) != len(lists[1]):
        raise UserError(
            f"{row.source}: column {answers_column!r} is {str(answers)[:60]}, expected lists of text "
            "and answer_start, as long as each other"
        )
    return [{"text": text, "answer_start": start} for text, start in zip(*lists, strict=True)]


def _locate(row: Row, context: str, answer: Any) -> Span:
    """The characters of an answer in the context, without the blanks around it."""
    text = answer.get("text") if isinstance(answer, Mapping) else answer
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{row.source}: an answer is {text!r}, expected a text")
    start = answer.get("answer_start") if isinstance(answer, Mapping) else None
    begin = _character_number(row, start)
    if begin is None:
        text = text.strip()
        begin = context.find(text)
    if begin < 0 or context[begin : begin + len(text)] != text:
        there = f" at character {begin}{other_unit(context, begin, text)}" if begin >= 0 else ""
        raise UserError(f"{row.source}: the answer {text[:60]!r} is not in its context{there}")
    return begin + len(text) - len(text.lstrip()), begin + len(text.rstrip())


def _character_number(row: Row, value: Any) -> int | None:
    """The number of a character, also as a table keeps it (text, or a float in a column with gaps); None for a gap."""
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


def context_tokens(window: Encoded) -> np.ndarray:
    """The tokens of a window that belong to the context: int64 indices."""
    return np.flatnonzero((window.segment_ids == 1) & (window.offsets[:, 1] > window.offsets[:, 0]))


def gold_tokens(window: Encoded, span: Span) -> Span | None:
    """The first and the last token of a window with a character of the span; None for a window without any."""
    tokens = context_tokens(window)
    offsets = window.offsets[tokens]
    touched = tokens[(offsets[:, 1] > span[0]) & (offsets[:, 0] < span[1])]
    return (int(touched[0]), int(touched[-1])) if len(touched) else None


def whole_gold_tokens(windows: Sequence[Encoded], span: Span) -> list[Span | None]:
    """For each of a row's windows the tokens of the span, as `gold_tokens`; None for a window that lacks some of them.

    A span may begin or end with characters that are in no token. So the whole of it is what all windows together have:
    from the first character of the earliest token to the last character of the latest.
    """
    found = [gold_tokens(window, span) for window in windows]
    holding = [(window, tokens) for window, tokens in zip(windows, found, strict=True) if tokens is not None]
    begin = min((window.offsets[first, 0] for window, (first, _) in holding), default=0)
    end = max((window.offsets[last, 1] for window, (_, last) in holding), default=0)

    def is_whole(window: Encoded, tokens: Span) -> bool:
        return bool(window.offsets[tokens[0], 0] == begin and window.offsets[tokens[1], 1] == end)

    return [
        tokens if tokens is not None and is_whole(window, tokens) else None
        for window, tokens in zip(windows, found, strict=True)
    ]


def whole_words(spans: Sequence[Span], context: str) -> list[Span]:
    """The spans from the beginning of the word in which each begins to the end of that in which it ends.

    Words are those of `Tokenizer.words`, which punctuation ends: "Anna" in "Anna's" is one. What begins or ends in a
    word of a script that does not part words by blanks, or glues particles to them as Korean does, stays as it is.
    """
    words = Tokenizer.words(context)
    begins, ends = np.array(words, dtype=np.int64).reshape(-1, 2).T

    def word_at(place: int) -> Span | None:
        """The word in which this character stands, without what no model reads: control characters at its ends, and
        marks of no letter."""
        number = int(np.searchsorted(begins, place, "right")) - 1
        if number < 0 or place >= ends[number] or _UNPARTED.search(context, begins[number], ends[number]):
            return None
        begin, end = int(begins[number]), int(ends[number])
        while begin < place and unicodedata.category(context[begin])[0] in "CM":
            begin += 1
        while end > place + 1 and unicodedata.category(context[end - 1]).startswith("C"):
            end -= 1
        return begin, end

    found = []
    for start, end in spans:
        first, last = word_at(start), word_at(end - 1)
        found.append((min(start, first[0]) if first else start, max(end, last[1]) if last else end))
    return found
