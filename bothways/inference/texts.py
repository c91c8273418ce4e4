"""What a predictor is given: one text or several, pairs, rows, in whatever they come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bothways.data.tables import Row
from bothways.errors import UserError

Text = str | tuple[str, str]


def rows_of(values: Sequence[dict[str, Any]]) -> list[Row]:
    return [Row(one, f"text {number}") for number, one in enumerate(values, 1)]


def are_rows(rows: Any) -> bool:
    return isinstance(rows, list) and bool(rows) and isinstance(rows[0], Row)


def columns_of_text(text: Text) -> dict[str, str]:
    return {"text": text} if isinstance(text, str) else {"text": text[0], "pair": text[1]}


def listed_texts(texts: Any) -> list[Any]:
    """One text, or several, in whatever they come: here two strings are two texts."""
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, Iterable):
        raise UserError(f"expected texts, found {texts!r}")
    return list(texts)


def listed_texts_and_pairs(texts: Text | Sequence[Text]) -> list[Text]:
    """One text, or several; a tuple of two strings is one pair."""
    if isinstance(texts, tuple) and len(texts) == 2:
        first, second = texts
        if isinstance(first, str) and isinstance(second, str):
            return [(first, second)]
    return listed_texts(texts)
