"""A step's examples shared out among the processes that train one model, each share cut into micro-batches.

The steps, each a function: sort the examples and deal them out, one a rank in each turn (`deal_out`), cut a share as
large as any could be, that of the longest example of each turn, to the token budget (`cut_evenly`), and cut every
rank's at the same places (`leave_none_empty`).

Six examples of 9, 8, 7, 6, 5, 4 tokens, two ranks, a budget of 20 tokens; the longer one of the second turn is rank
1's, which has fewer tokens by then:

    rank 0   9  6  5    cut where 9  7  5 is, behind 9 + 7 = 16:   [9 6] [5]
    rank 1   8  7  4    at the same places:                        [8 7] [4]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bothways.errors import UserError, option
from bothways.token_budget import cut_evenly


def share_among_ranks(lengths: np.ndarray, rank: int, world_size: int, token_budget: int) -> list[np.ndarray]:
    """The micro-batches of one rank: int64 indices into `lengths`, longest example first.

    Every rank gets the same number of batches, as processes that work on one model must, and none is empty. In each
    turn every rank takes an example, so where a share of the longest ones fits the budget, every rank's does.

    The budget is exceeded in one case only: each of these longest examples needs a batch by itself, and a rank has
    one example fewer, as with 60, 60 and 60 tokens, two ranks and a budget of 100. The examples of the last,
    incomplete turn then join batches of the turn before, the longest example the shortest batch.
    Raises UserError where there are fewer examples than ranks.
    """
    turns, left_over = divmod(len(lengths), world_size)
    if not turns:
        raise UserError(
            f"a step of {len(lengths)} examples cannot be shared out among {world_size} processes; "
            f"raise {option('tokens_per_step')}"
        )
    order = longest_first(lengths)
    ends = cut_evenly(lengths[order[::world_size]], token_budget)
    if left_over and len(ends) > turns:
        ends = [*ends[:-2], ends[-1]]
        own = _join_last_turn(order, rank, world_size)
    else:
        taken = deal_out(lengths, world_size)[:, rank]
        own = taken[taken >= 0]
    return np.split(own, leave_none_empty(ends, len(own))[:-1])


def deal_out(lengths: np.ndarray, world_size: int) -> np.ndarray:
    """Which example each rank takes in each turn: int64 `[turns, world_size]`, -1 where there is none left in the last.

    Turns are in the order of length, longest first. Who takes which of a turn is settled so that all have about as many
    tokens: turn by turn, from the one whose lengths differ the most, the rank with the fewest takes the longest.
    """
    turns = -(-len(lengths) // world_size)
    examples = np.full((turns, world_size), -1, np.int64)
    examples.flat[: len(lengths)] = longest_first(lengths)
    tokens = np.where(examples >= 0, lengths[examples], 0)
    spread = tokens[:, 0] - tokens[:, -1]
    loads = np.zeros(world_size, np.int64)
    for turn in np.argsort(-spread, kind="stable")[: np.count_nonzero(spread)]:
        fewest_first = np.argsort(loads, kind="stable")
        examples[turn, fewest_first] = examples[turn].copy()
        loads[fewest_first] += tokens[turn]
    return examples


def longest_first(lengths: np.ndarray) -> np.ndarray:
    """The index that sorts examples by length, falling; equal ones keep their order."""
    return np.argsort(-lengths, kind="stable")


def leave_none_empty(ends: Sequence[int], count: int) -> list[int]:
    """The ends of batches, moved to the front where `count` examples would leave the later ones without any.

    A rank with one example fewer than rank 0 lacks it in its last batch. Where that is the batch's only one, the batch
    before ends sooner, and so on to the front: a batch that ends sooner gets shorter, and those behind it hold one
    example each, so that all still fit the budget.
    """
    return [min(end, count - later) for end, later in zip(ends, reversed(range(len(ends))), strict=True)]


def _join_last_turn(order: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """One rank's share where its last batch takes an example of the incomplete turn as well.

    Ranks take these examples in reverse, as of one turn the last rank's example is the shortest.
    """
    full_turns = len(order) // world_size * world_size
    joining = full_turns + world_size - 1 - rank
    return np.concatenate([order[rank:full_turns:world_size], order[joining : joining + 1]])
