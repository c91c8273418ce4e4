"""The texts, pairs and rows that a predictor is given, in whatever they come.

One rule for one and many: a string is a text and a tuple of two strings a pair, which have one result; a list of them,
an array, a generator, a Series, a column of a table or a table itself have a list of results.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bothways.data.frames import frame_column, frame_columns, listed_values
from bothways.data.tables import Row, is_missing_value
from bothways.errors import UserError
from bothways.text.lines import is_unicode

Text = str | tuple[str, str]
Texts = Iterable[Any]  # of `Text`; a table is an iterable of something else


@dataclass(frozen=True)
class Asked:
    """What a predictor is asked. texts: all of them. alone: whether there is one that came by itself, not in a list."""

    texts: list[Text]
    alone: bool

    def given(self, results: Any) -> Any:
        """The result of the text that came alone, else the results."""
        return results[0] if self.alone else results


@dataclass(frozen=True)
class TextColumns:
    """The columns by which a table is read where texts are asked for: those of the fine-tuning, else `text`."""

    text: str = "text"
    pair: str | None = None


def asked_texts(values: Any, columns: TextColumns | None = None) -> Asked:
    """The texts and pairs out of one of them or many.

    columns: of a table. Raises UserError for what is no text or pair, or holds none, with what to give instead.
    """
    if isinstance(values, str):
        return Asked([_checked(values, "the text")], True)
    if isinstance(values, tuple):
        return Asked([_checked(values, "the text")], True)
    listed = _table_texts(values, columns or TextColumns())
    return Asked([_checked(text, f"text {number}") for number, text in enumerate(listed, 1)], False)


def _table_texts(values: Any, columns: TextColumns) -> list[Any]:
    """The texts of a table, or of anything else that holds several."""
    names = frame_columns(values)
    if names is None:
        return _listed(values)
    first = next((name for name in (columns.text, "text") if name in names), None)
    wanted = [first, *([columns.pair] if columns.pair else [])]
    if first is None or any(name not in names for name in wanted):
        missing = columns.text if first is None else columns.pair
        example = f"; give one of them, df[{names[0]!r}] say" if names else ""
        raise UserError(
            f"a table without a column {missing!r}; its columns are {', '.join(map(str, names)) or 'none'}{example}"
        )
    found = [frame_column(values, name) for name in wanted]
    return found[0] if len(found) == 1 else list(zip(*found, strict=True))


def _listed(values: Any) -> list[Any]:
    if isinstance(values, bytes | bytearray):
        raise UserError(f"expected texts, found bytes, {bytes(values[:20])!r}; decode them, .decode('utf-8') say")
    if isinstance(values, Mapping):
        name = next(iter(values), "text")
        raise UserError(f"expected texts, found a {type(values).__name__}; give a list of texts, its [{name!r}] say")
    if isinstance(values, set | frozenset):
        raise UserError("expected texts, found a set, which has no order; give a list, so that results have its order")
    listed = listed_values(values)
    if listed is None:
        raise UserError(f"expected texts, found {values!r}")
    return listed


def _checked(text: Any, place: str) -> Text:
    """A text or a pair. Raises UserError for anything else."""
    segments = text if isinstance(text, tuple) and len(text) == 2 else (text,)
    if all(isinstance(segment, str) and is_unicode(segment) for segment in segments):
        return text
    if any(map(is_missing_value, segments)):
        raise UserError(f"{place} is missing ({text!r}), expected a string or a pair of strings; leave it out")
    cure = ""
    if isinstance(text, tuple):
        cure = "; a tuple of two strings is a pair, several texts are a list"
    elif isinstance(text, list) and len(text) == 2:
        cure = "; a pair is a tuple, (a, b)"
    elif isinstance(text, Mapping):
        cure = "; give the texts of rows, [row['text'] for row in rows] say"
    elif isinstance(text, bytes):
        cure = "; decode it, .decode('utf-8') say"
    raise UserError(f"{place}: expected a string or a pair of strings, found {str(text)[:80]!a}{cure}")


def together(first: Asked, second: Asked, names: tuple[str, str]) -> tuple[list[tuple[Any, Any]], bool]:
    """Each of some texts with the one of others that has its number, or with the only one that there is; and whether
    both came alone.

    names: how messages call the two. Raises UserError where they are not as many.
    """
    both = [first.texts * len(second.texts) if first.alone else first.texts]
    both.append(second.texts * len(both[0]) if second.alone else second.texts)
    if len(both[0]) != len(both[1]):
        counts = f"{len(both[0]):,} {names[0]}s, but {len(both[1]):,} {names[1]}s"
        raise UserError(f"{counts}; give one {names[1]} for all, or as many as {names[0]}s")
    return list(zip(*both, strict=True)), first.alone and second.alone


def rows_of(values: Sequence[dict[str, Any]]) -> list[Row]:
    """Values by column as rows, which messages call text 1, text 2, …"""
    return [Row(columns, f"text {number}") for number, columns in enumerate(values, 1)]


def are_rows(rows: Any) -> bool:
    """Whether this is a list of rows that are read already."""
    return isinstance(rows, list) and bool(rows) and isinstance(rows[0], Row)


def columns_of_text(text: Text) -> dict[str, str]:
    """A text as the values of a row: `text`, of a pair also `pair`."""
    return {"text": text} if isinstance(text, str) else {"text": text[0], "pair": text[1]}
