"""A row's words and the gold label of each: out of words and labels side by side, or of a text and its spans."""

from __future__ import annotations

import bisect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bothways.data.tables import Row, as_label
from bothways.errors import UserError
from bothways.tasks.entities import OUTSIDE, prefixed_label
from bothways.text.lines import is_unicode
from bothways.text.places import other_unit

Characters = tuple[int, int]  # start and end of a word or span in the text


@dataclass(frozen=True)
class Words:
    """A row's words. text: all of them. characters: where each stands in the text, `(start, end)`. labels: the gold
    label of each, where they were asked for. inside: spans that begin or end inside a word, and their words."""

    text: str
    characters: list[Characters]
    labels: list[str] | None = None
    inside: tuple[tuple[str, str], ...] = ()


def listed_words(row: Row, words_column: str, labels_column: str | None) -> Words:
    """The words that a row lists, a blank between each two. Raises UserError for labels that are not as many, and for
    what is no word."""
    listed = row.items(words_column)
    bad = [word for word in listed if not isinstance(word, str) or not word or not is_unicode(word)]
    if bad or not listed:
        raise UserError(
            f"{row.source}: column {words_column!r} holds {bad[0]!r}, not a word" if bad else f"{row.source}: no words"
        )
    ends = np.cumsum([len(word) + 1 for word in listed]).tolist()
    characters = [(end - len(word) - 1, end - 1) for word, end in zip(listed, ends, strict=True)]
    if labels_column is None:
        return Words(" ".join(listed), characters)
    labels = row.items(labels_column)
    if len(labels) != len(listed):
        raise UserError(
            f"{row.source}: {len(listed)} words in {words_column!r}, but {len(labels)} labels in {labels_column!r}"
        )
    place = f"{row.source}: column {labels_column!r}"
    return Words(" ".join(listed), characters, [as_label(label, place) for label in labels])


def text_words(
    row: Row, text_column: str, spans_column: str | None, cut: Callable[[str], list[Characters]], scheme: str
) -> Words:
    """The words of a row's text as `cut` finds them; with a column of spans each has a label of the scheme, and belongs
    to the span that it shares a character with. Raises UserError for spans outside the text, with another text than
    their own, without a word, and two that share a word."""
    text = row.text(text_column)
    characters = cut(text)
    if spans_column is None:
        return Words(text, characters)
    labels = [OUTSIDE] * len(characters)
    begins, ends = [a for a, _ in characters], [b for _, b in characters]
    taken: dict[int, str] = {}
    partly: list[tuple[str, str]] = []
    for span in row.items(spans_column):
        start, end, label = _span(row, span, text)
        within = range(bisect.bisect_right(ends, start), bisect.bisect_left(begins, end))
        if not within:
            raise UserError(f"{row.source}: the span {text[start:end]!r} holds no word")
        first, last = within[0], within[-1]
        if begins[first] < start or end < ends[last]:
            partly.append((text[start:end], text[begins[first] : ends[last]]))
        for n in within:
            if n in taken:
                raise UserError(f"{row.source}: the spans {taken[n]!r} and {text[start:end]!r} share a word")
            taken[n] = text[start:end]
            labels[n] = prefixed_label(label, n == first, n == last, scheme)
    return Words(text, characters, labels, tuple(partly))


def _span(row: Row, span: Any, text: str) -> tuple[int, int, str]:
    """Start, end and label of a span. Raises UserError for one that is not in the text, or not where it says."""
    if not isinstance(span, Mapping) or not {"start", "end", "label"} <= set(span):
        raise UserError(f"{row.source}: a span is {span!r}, expected an object of start, end and label")
    start, end, own = span["start"], span["end"], span.get("text")
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end):
        raise UserError(f"{row.source}: a span from {start!r} to {end!r} in a text of {len(text)} characters")
    unit = other_unit(text, start, own) if isinstance(own, str) and own else ""
    if end > len(text):
        raise UserError(f"{row.source}: a span from {start!r} to {end!r} in a text of {len(text)} characters{unit}")
    if isinstance(own, str) and own != text[start:end]:
        raise UserError(f"{row.source}: the span from {start} to {end} is {text[start:end]!r}, but says {own!r}{unit}")
    return start, end, as_label(span["label"], f"{row.source}: a span")


def warn_of_spans(read: Sequence[tuple[str, Words]]) -> None:
    """Warns of spans that begin or end inside a word. read: rows' sources and words."""
    found = [(source, words.text, *pair) for source, words in read for pair in words.inside]
    if found:
        source, _, span, whole = found[0]
        message = (
            f"{len(found):,} spans begin or end inside a word and mark all of it, "
            f"the first in {source}: {span!r} in {whole!r}"
        )
        if any(max(text) > "\uffff" for _, text, *_ in found):
            message += "; places have to count characters: a browser's UTF-16 units make an emoji two"
        warnings.warn(message, stacklevel=3)
