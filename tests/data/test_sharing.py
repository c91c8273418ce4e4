"""A step shared out among ranks: nothing lost, as many batches each, within the budget."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bothways.data.micro_batches import deal_out, leave_none_empty, share_among_ranks
from bothways.errors import UserError
from bothways.token_budget import cut_evenly


def shares_of(lengths: list[int], world_size: int, budget: int) -> list[list[list[int]]]:
    """The examples of each batch of each rank."""
    shares = [share_among_ranks(np.array(lengths), rank, world_size, budget) for rank in range(world_size)]
    return [[batch.tolist() for batch in share] for share in shares]


@settings(max_examples=500, deadline=None)
@given(st.integers(1, 5), st.lists(st.integers(1, 60), min_size=5, max_size=40), st.integers(1, 200))
@example(2, [50] * 5, 100)
@example(3, [50] * 7, 100)
@example(2, [60, 60, 60], 100)
def test_ranks_share_out_a_step_in_as_many_batches_each(world_size: int, lengths: list[int], budget: int) -> None:
    shares = shares_of(lengths, world_size, budget)
    assert len({len(share) for share in shares}) == 1
    batches = [batch for share in shares for batch in share]
    assert all(batches)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    over = [batch for batch in batches if len(batch) > 1 and sum(lengths[index] for index in batch) > budget]
    turns = sorted(lengths, reverse=True)[::world_size]
    if len(lengths) % world_size == 0 or any(
        longer + shorter <= budget for longer, shorter in itertools.pairwise(turns)
    ):
        assert not over
    # otherwise one sequence a batch is all that fits, and some rank has one sequence fewer than the first
    assert all(len(batch) == 2 for batch in over)
    assert len(over) <= len(lengths) % world_size


@pytest.mark.parametrize(
    ("lengths", "budget", "shares"),
    [
        ([10, 40, 30, 20], 60, [[[1, 0]], [[2, 3]]]),
        ([40, 40, 40, 20, 20], 60, [[[0], [2]], [[1], [3, 4]]]),
        ([50, 50, 50, 50, 50], 100, [[[0, 2], [4]], [[1], [3]]]),  # all three together would be 150
        ([90, 90, 50, 50, 50, 50, 50], 100, [[[0], [2, 4], [6]], [[1], [3], [5]]]),
        ([90, 60, 40], 100, [[[0]], [[1, 2]]]),
        ([60, 60, 60], 100, [[[0]], [[1, 2]]]),  # three batches of one cannot be shared by two ranks
    ],
)
def test_two_ranks_keep_the_budget(lengths: list[int], budget: int, shares: list[list[list[int]]]) -> None:
    assert shares_of(lengths, 2, budget) == shares


@given(st.integers(1, 9), st.lists(st.integers(1, 128), min_size=9, max_size=80))
def test_ranks_differ_by_no_more_than_the_lengths_of_one_turn(world_size: int, lengths: list[int]) -> None:
    """Which of a turn a rank takes makes up for other turns; one example a turn each, and the order of length stays."""
    dealt = deal_out(np.array(lengths), world_size)
    assert sorted(dealt[dealt >= 0].tolist()) == list(range(len(lengths)))
    tokens = np.where(dealt >= 0, np.array(lengths)[dealt], 0)
    assert tokens.sum(axis=0).max() - tokens.sum(axis=0).min() <= (tokens.max(axis=1) - tokens.min(axis=1)).max()
    assert (tokens[:-1].min(axis=1) >= tokens[1:].max(axis=1)).all()
    if world_size == 1:
        assert tokens[:, 0].tolist() == sorted(lengths, reverse=True)


@pytest.mark.parametrize("tokens", [2048, 4096])
@pytest.mark.parametrize("ranks", [8, 512])
def test_ranks_have_as_many_tokens_within_one_per_cent(ranks: int, tokens: int) -> None:
    """Sequences of 128 and the shorter ends of documents, as masked LM cuts them."""
    rng = np.random.default_rng(ranks + tokens)
    lengths = np.where(rng.random(ranks * tokens // 100) < 0.6, 128, rng.integers(4, 128, ranks * tokens // 100))
    dealt = deal_out(lengths, ranks)
    loads = np.where(dealt >= 0, lengths[dealt], 0).sum(axis=0)
    assert loads.max() / loads.mean() < 1.01


def test_a_step_of_fewer_examples_than_ranks_is_refused() -> None:
    with pytest.raises(UserError, match="3 examples cannot be shared out among 4 processes"):
        share_among_ranks(np.array([5, 6, 7]), 0, 4, 100)


def test_batches_are_of_about_one_size() -> None:
    assert cut_evenly(np.array([9, 7, 5]), 20) == [2, 3]
    assert cut_evenly(np.array([10] * 11), 100) == [6, 11]  # not ten and one
    assert cut_evenly(np.array([60, 50]), 40) == [1, 2]  # a longer example stands alone


def test_a_rank_with_fewer_examples_has_no_empty_batch() -> None:
    assert leave_none_empty([2, 4, 5], 5) == [2, 4, 5]
    assert leave_none_empty([2, 4, 5], 4) == [2, 3, 4]
    assert leave_none_empty([1, 2, 3], 3) == [1, 2, 3]
