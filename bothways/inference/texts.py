"""The texts, pairs and rows that a predictor is given, in whatever they come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bothways.data.tables import Row
from bothways.errors import UserError

Text = str | tuple[str, str]


def rows_of(values: Sequence[dict[str, Any]]) -> list[Row]:
    """Values by column as rows, which messages call text 1, text 2, …"""
    return [Row(columns, f"text {number}") for number, columns in enumerate(values, 1)]


def are_rows(rows: Any) -> bool:
    """Whether this is a list of rows that are read already."""
    return isinstance(rows, list) and bool(rows) and isinstance(rows[0], Row)


def columns_of_text(text: Text) -> dict[str, str]:
    """A text as the values of a row: `text`, of a pair also `pair`."""
    return {"text": text} if isinstance(text, str) else {"text": text[0], "pair": text[1]}


def listed_texts(texts: Any) -> list[Any]:
    """The texts as a list, from a text or any iterable of texts; two strings in a tuple are two texts. Raises UserError
    for anything else."""
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, Iterable):
        raise UserError(f"expected texts, found {texts!r}")
    if isinstance(texts, Mapping) or hasattr(texts, "columns"):  # a loop over these runs over the names of columns
        names = list(texts.columns if hasattr(texts, "columns") else texts)
        raise UserError(
            f"expected texts, found a {type(texts).__name__} of columns; give one of them"
            + (f", df[{names[0]!r}] say" if names and isinstance(names[0], str) else "")
        )
    return list(texts)


def listed_texts_and_pairs(texts: Text | Sequence[Text]) -> list[Text]:
    """The texts and pairs as a list, from one of them or any iterable; a tuple of two strings is a pair."""
    if isinstance(texts, tuple) and len(texts) == 2:
        first, second = texts
        if isinstance(first, str) and isinstance(second, str):
            return [(first, second)]
    return listed_texts(texts)
