"""A share of the rows held out: labels with their share, near-duplicates on one side, the same for the same seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from bothways.data.holdout import HoldOut, hold_out, near_duplicate_key
from bothways.data.tables import Row
from bothways.errors import UserError


def rows_of(pairs: Sequence[tuple[str, str]]) -> list[Row]:
    return [Row({"text": text, "label": label}, f"row {n}") for n, (text, label) in enumerate(pairs, 1)]


def split(rows: Sequence[Row], share: float = 0.2, seed: int = 1) -> HoldOut:
    return hold_out(rows, share, seed, lambda row: [row.values["text"]], lambda row: [row.values["label"]])


@pytest.mark.parametrize(
    ("text", "same", "other"),
    [
        ("Order 4411 is late!", "is ORDER 98 late", "Order 4411 is early!"),
        ("Café, s'il vous plaît", "cafe s’il vous  plait.", "thé, s'il vous plaît"),
        ("今年", "今年。", "去年"),
        ("!!!", "!!! ", "???"),
    ],
)
def test_what_near_duplicates_share(text: str, same: str, other: str) -> None:
    assert near_duplicate_key(text) == near_duplicate_key(same)
    assert near_duplicate_key(text) != near_duplicate_key(other)


def letters(number: int) -> str:
    return "".join(chr(97 + int(digit)) for digit in str(number))


def test_each_label_has_its_share_and_the_seed_decides() -> None:
    rows = rows_of([(letters(n), "abc"[0 if n < 200 else 1 if n < 280 else 2]) for n in range(300)])
    parts = split(rows)
    assert Counter(row.values["label"] for row in parts.held_out) == {"a": 40, "b": 16, "c": 4}
    assert sorted([*parts.train, *parts.held_out], key=rows.index) == rows
    assert parts.train == sorted(parts.train, key=rows.index)
    assert split(rows) == parts
    assert split(rows, seed=2).held_out != parts.held_out
    assert parts.kept_together == 0


def test_many_small_labels_get_the_share_together() -> None:
    rows = rows_of([(letters(n), f"label {n // 3}") for n in range(300)])
    held_out = split(rows).held_out
    assert len(held_out) == 60
    assert max(Counter(row.values["label"] for row in held_out).values()) <= 2


def test_near_duplicates_are_on_one_side() -> None:
    rng = random.Random(0)
    pairs = [(f"{letters(n // 3)} {n}", "xy"[n % 2]) for n in range(300)]  # three of each text, but for the number
    rng.shuffle(pairs)
    parts = split(rows_of(pairs))
    train, held_out = (
        {near_duplicate_key(row.values["text"]) for row in part} for part in (parts.train, parts.held_out)
    )
    assert not train & held_out
    assert len(parts.held_out) == 60
    assert parts.kept_together == 300


def test_a_label_is_never_held_out_with_its_last_row() -> None:
    rows = rows_of([*((letters(n), "common") for n in range(20)), ("rare", "rare"), ("so is this", "other")])
    for seed in range(20):
        assert {"rare", "other"} <= {row.values["label"] for row in split(rows, 0.5, seed).train}
    both = rows_of([("same", "a"), ("same!", "b"), ("c", "a"), ("d", "a"), ("e", "a")])  # one text, two labels
    for seed in range(20):
        assert {row.values["label"] for row in split(both, 0.4, seed).train} == {"a", "b"}


def test_rows_of_which_none_can_be_held_out() -> None:
    alike = ", as all have the same text or context, or nearly"
    for rows, why in ((rows_of([("one", "a"), ("two", "b")]), ""), (rows_of([("one", "a")] * 5), alike)):
        with pytest.raises(UserError, match=rf"eval=0\.2: no row of \d can be held out{why}; give a table"):
            split(rows)
