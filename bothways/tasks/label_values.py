"""What a column of labels may hold where a row can have several: a list, a list as text, text with commas, or a vector
of 0 and 1. What is none of them is refused, with its row.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bothways.data.tables import as_label
from bothways.errors import UserError, option

VECTOR_AS_TEXT = re.compile(r"\[?\s*[01]\.?0?(?:[\s,;]+[01]\.?0?){2,}\s*\]?")  # 1,0,1 and [1 0 1] and [1. 0. 1.]
NUMBER = re.compile(r"[+-]?\d*\.?\d+(?:[eE][+-]?\d+)?")
COMMA_NUMBER = re.compile(r"[+-]?\d+,\d+")  # 5,1
# Labels that are numbers and more than these are rather measurements; chosen by hand. Numbers of classes, as data sets
# have them, are whole, and have some rows each.
MOST_FRACTIONS, MOST_INTEGERS, ROWS_OF_CLASS = 5, 20, 10
COMBINING_MARKS = ",;|"
FEWEST_ROWS = 10  # of which it can be said that hardly a label repeats
QUOTES_SIDE_BY_SIDE = re.compile(r"(['\"])\s+\1")  # numpy writes ['a' 'b'], which Python reads as ['ab']
VECTOR_VALUES = {"0": False, "0.0": False, "False": False, "1": True, "1.0": True, "True": True}


def require_no_list(value: Any, place: str) -> None:
    """Raises UserError for several labels where a row has one, also where they come as text."""
    listed = isinstance(value, list | tuple | set | frozenset | np.ndarray)
    if listed or (isinstance(value, str) and (VECTOR_AS_TEXT.fullmatch(value.strip()) or _is_list_as_text(value))):
        kind = "a list" if listed else f"a list as text, {value.strip()[:40]!r}"
        cure = option("problem_type", "multi_label_classification")
        raise UserError(f"{place} is {kind}; {cure} learns several labels a row")


def require_classes(counts: Mapping[str, int], source: str) -> None:
    """Raises UserError where the labels are measurements, numbers with fractions that hardly ever repeat.

    counts: the rows of each label. source: of the first row.
    """
    rows = sum(counts.values())
    if rows >= FEWEST_ROWS and len(counts) > rows / 2 and all(map(NUMBER.fullmatch, counts)):
        fraction = next((label for label in counts if "." in label), None)
        if fraction is not None:
            raise UserError(
                f"{source}: the labels are {len(counts):,} different numbers in {rows:,} rows, {fraction} say; "
                f"{option('problem_type', 'regression')} learns numbers"
            )


def advice_on_classes(counts: Mapping[str, int]) -> str | None:
    """What to say of labels that are hardly classes: numbers, or combinations of labels; None of others.

    counts: the rows of each label.
    """
    rows, found = sum(counts.values()), len(counts)
    if found > MOST_FRACTIONS and all(map(COMMA_NUMBER.fullmatch, counts)):
        cure = f"{option('problem_type', 'regression')} learns them as numbers once they have points"
        return f"the labels are numbers with decimal commas: {found:,} classes for {rows:,} rows; {cure}"
    if all(map(NUMBER.fullmatch, counts)):
        fractions = any("." in label for label in counts)
        few = fractions or rows < ROWS_OF_CLASS * found  # rows of a class
        if few and found > (MOST_FRACTIONS if fractions else MOST_INTEGERS):
            cure = f"{option('problem_type', 'regression')} learns them as numbers"
            return f"the labels are numbers: {found:,} classes for {rows:,} rows; {cure}"
    for mark in COMBINING_MARKS:
        parts = {label: [part.strip() for part in label.split(mark)] for label in counts if mark in label}
        uses = Counter(part for of_label in parts.values() for part in of_label) + Counter({*counts} - {*parts})
        combined = [label for label, of_label in parts.items() if all(uses[part] > 1 for part in of_label)]
        if len(combined) > 1 or (combined and {*parts[combined[0]]} <= {*counts}):
            commas = "" if mark == "," else f", with commas for the {mark}"
            return (
                f"{len(combined):,} of {found:,} classes are combinations of labels, {combined[0]!r} say; "
                f"{option('problem_type', 'multi_label_classification')} learns each label by itself{commas}"
            )
    return None


def several_labels(value: Any, place: str) -> tuple[str, ...]:
    """The labels of a row, each once, in their order.

    value: a list or set of labels, text with commas between them, or text that JSON or Python reads as a list. place:
    where it is, for errors. Raises UserError for anything else, and for a vector of 0 and 1, which names no labels.
    """
    values = _listed(value, place)
    if _is_vector(values):
        raise UserError(
            f"{place} is {str(value)[:40]!r}, a vector of 0 and 1 without names; {option('label_names')} says what "
            f"its {len(values)} places stand for, or give the names of the labels that a row has"
        )
    return tuple(dict.fromkeys(as_label(label, place) for label in values))


def labels_of_vector(value: Any, names: Sequence[str], place: str) -> tuple[str, ...]:
    """The names of the places at which a vector has a 1; the vector may be text.

    Raises UserError for what is no vector of 0 and 1, and for one of another length than `names`.
    """
    if isinstance(value, str):
        values: list[Any] = re.split(r"[\s,;]+", value.strip().strip("[]()").strip())
    else:
        values = _listed(value, place)
    given = [VECTOR_VALUES.get(str(item).strip().removesuffix(".")) for item in values]
    if len(values) != len(names) or None in given:
        raise UserError(
            f"{place} is {str(value)[:40]!r}; {option('label_names')} has {len(names)} names, so a vector of "
            f"{len(names)} numbers, each 0 or 1, is expected"
        )
    return tuple(name for name, has in zip(names, given, strict=True) if has)


def _listed(value: Any, place: str) -> list[Any]:
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("[") and text.endswith("]"):
            return _list_from_text(text, place)
        return [part for part in text.split(",") if part.strip()]
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return list(value)
    if isinstance(value, list | tuple):
        return [*value]
    raise UserError(f"{place} is {str(value)[:40]!r}; several labels are a list, or a text with commas")


def _list_from_text(text: str, place: str) -> list[Any]:
    """The list that a text between brackets is. Raises UserError for what neither JSON nor Python reads as one."""
    if VECTOR_AS_TEXT.fullmatch(text):
        return [item.removesuffix(".") for item in re.split(r"[\s,;]+", text.strip("[]").strip())]
    found = _parsed(text)
    if not isinstance(found, list):
        raise UserError(
            f'{place} is {text[:40]!r}, which looks like a list and is none; write ["a", "b"], or the labels with '
            "commas and without brackets"
        )
    return found


def _is_list_as_text(text: str) -> bool:
    stripped = text.strip()
    return stripped.startswith("[") and stripped.endswith("]") and isinstance(_parsed(stripped), list)


def _parsed(text: str) -> Any:
    """What JSON or else Python reads in a text; None where neither does."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if QUOTES_SIDE_BY_SIDE.search(text):
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def _is_vector(values: Sequence[Any]) -> bool:
    """Whether labels are 0 and 1 and one of them is there twice, which in a list of names makes no sense."""
    given = [VECTOR_VALUES.get(str(item).strip()) for item in values]
    return None not in given and len(given) > len(set(given))
