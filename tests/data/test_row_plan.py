"""The plan of labelled rows is a pure function of (rows, seed, step)."""

from __future__ import annotations

import numpy as np
import pytest

from bothways.data.encoded import Encoded
from bothways.data.row_plan import RowPlan, RowPlanOptions
from bothways.errors import UserError
from bothways.token_budget import UNLIMITED


def row_plan(**changes: object) -> RowPlan:
    """25 sequences, two a row, of the numbers 0 to 24 each repeated."""
    encoded = [
        Encoded(
            np.full(n % 7 + 3, n),
            np.zeros(n % 7 + 3, int),
            np.zeros(n % 7 + 3, int),
            np.zeros((n % 7 + 3, 2), int),
            row=n // 2,
        )
        for n in range(25)
    ]
    options = RowPlanOptions(**{"batch_size": 4, **changes})
    return RowPlan(
        encoded, lambda sequences: {"id": np.array([sequence.input_ids[0] for sequence in sequences])}, options, {}
    )


@pytest.mark.parametrize("tokens", [None, 30])
def test_rows_are_visited_once_an_epoch(tokens: int | None) -> None:
    plan = row_plan(tokens_per_step=tokens)
    steps = plan.steps(1)
    epochs = []
    for first in (0, steps):
        visited = [plan.micro_batches(step, 0, 1, 20) for step in range(first, plan.steps(2) if first else steps)]
        epochs.append([id for batches in visited for batch in batches for id in batch.targets["id"].tolist()])
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(25))
    assert epochs[0] != epochs[1]
    if tokens is None:
        assert steps == 7
    again = row_plan(tokens_per_step=tokens).micro_batches(steps + 2, 0, 1, UNLIMITED)[0]
    assert again.targets["id"].tolist() == plan.micro_batches(steps + 2, 0, 1, UNLIMITED)[0].targets["id"].tolist()


@pytest.mark.parametrize(("keep_whole", "most"), [("sequence", 1), ("row", 2), ("step", 8)])
def test_what_must_stay_whole_is_not_cut_by_the_budget(keep_whole: str, most: int) -> None:
    plan = row_plan(keep_whole=keep_whole)
    batches = [batch for step in range(plan.steps(1)) for batch in plan.micro_batches(step, 0, 1, token_budget=1)]
    assert max(batch.num_sequences for batch in batches) == most
    if keep_whole != "sequence":
        rows = [{id // 2 for id in batch.targets["id"].tolist()} for batch in batches]
        assert sum(map(len, rows)) == len(set().union(*rows)) == 13  # no row is in two batches


def test_impossible_options_are_refused() -> None:
    with pytest.raises(UserError, match="batch_size=0"):
        RowPlanOptions(0)
    with pytest.raises(UserError, match="tokens_per_step=0"):
        RowPlanOptions(1, 0)
