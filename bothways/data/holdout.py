"""A share of labelled rows held out to measure on: each label with its share, near-duplicates on one side."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bothways.data.tables import Row
from bothways.errors import UserError, option

_WORDS = re.compile(r"\w+")
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class HoldOut:
    """Rows in two parts, each in the order of the table. kept_together: rows with another one that is as good as the
    same, or shares its context, and so is in the same part."""

    train: list[Row]
    held_out: list[Row]
    kept_together: int


def near_duplicate_key(text: str) -> str:
    """What near-duplicates share: their different words, in lower case, without marks, punctuation and order, every
    number as 0. "Order 4411 is late!" and "is order 98 late" are near-duplicates; a text with one word changed is none.
    """
    folded = unicodedata.normalize("NFKD", text.casefold())
    words = _WORDS.findall("".join(character for character in folded if not unicodedata.combining(character)))
    return " ".join(sorted({_DIGITS.sub("0", word) for word in words})) or text.strip()


def hold_out(
    rows: Sequence[Row],
    share: float,
    seed: int,
    texts_of: Callable[[Row], Iterable[str]],
    labels_of: Callable[[Row], Iterable[str]],
) -> HoldOut:
    """Hold out `share` of the rows, chosen by the seed.

    texts_of: rows that share one of these, or a near-duplicate of it, are in one part. labels_of: every label of a row
    also stays in a row to train on; a row counts to the share of its rarest label. Raises UserError where no row can be
    held out.
    """
    groups = _groups([[near_duplicate_key(text) for text in texts_of(row)] for row in rows])
    labels = [tuple(labels_of(row)) for row in rows]
    left = Counter(label for of_row in labels for label in of_row)
    rarity = dict(left)
    strata: dict[str, list[list[int]]] = {}
    for group in groups:
        rarest = min(
            (label for row in group for label in labels[row]), key=lambda name: (rarity[name], name), default=""
        )
        strata.setdefault(rarest, []).append(group)
    chosen: set[int] = set()
    rng, seen = np.random.default_rng(seed), 0
    for name in sorted(strata):
        stratum = strata[name]
        seen += sum(map(len, stratum))
        for index in rng.permutation(len(stratum)):
            group = stratum[index]
            missing = share * seen - len(chosen)
            lost = Counter(label for row in group for label in labels[row])
            if len(group) / 2 <= missing and all(left[label] > count for label, count in lost.items()):
                chosen.update(group)
                left -= lost
    if not chosen or len(chosen) == len(rows):
        why = ", as all have the same text or context, or nearly" if len(groups) == 1 < len(rows) else ""
        raise UserError(
            f"{option('eval', share)}: no row of {len(rows):,} can be held out{why}; give a table of rows to measure on"
        )
    return HoldOut(
        [row for number, row in enumerate(rows) if number not in chosen],
        [row for number, row in enumerate(rows) if number in chosen],
        sum(len(group) for group in groups if len(group) > 1),
    )


def _groups(keys: Sequence[Sequence[str]]) -> list[list[int]]:
    """The numbers of the rows that share a key, or are linked by rows that do, in order of their first."""
    parent = list(range(len(keys)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number

    first: dict[str, int] = {}
    for number, of_row in enumerate(keys):
        for key in of_row:
            a, b = sorted((root(first.setdefault(key, number)), root(number)))
            parent[b] = a
    groups: dict[int, list[int]] = {}
    for number in range(len(keys)):
        groups.setdefault(root(number), []).append(number)
    return list(groups.values())
