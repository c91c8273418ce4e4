"""Token budgets: sequences, by their lengths, cut into batches of at most so many tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import ceil

import numpy as np

UNLIMITED = 1 << 62  # a budget or limit in tokens that nothing reaches; sums with it still fit 64 bits


def cut_to_budget(lengths: Iterable[int], token_budget: int) -> Iterator[slice]:
    """Cut a series of lengths into consecutive groups of at most `token_budget` tokens; a longer one stands alone."""
    start, tokens, index = 0, 0, -1
    for index, length in enumerate(lengths):
        if tokens and tokens + length > token_budget:
            yield slice(start, index)
            start, tokens = index, 0
        tokens += length
    if index >= start:
        yield slice(start, index + 1)


def cut_evenly(lengths: np.ndarray, token_budget: int) -> list[int]:
    """Where batches of consecutive examples end: as few as fit the budget, and of about one size.

    A small last batch would cost as many kernel calls as a full one.
    """
    tokens = lengths.tolist()
    fewest = [batch.stop for batch in cut_to_budget(tokens, token_budget)]
    even_size = ceil(sum(tokens) / len(fewest)) + tokens[0]  # the longest example may not fit behind the others
    even = [batch.stop for batch in cut_to_budget(tokens, min(token_budget, even_size))]
    return even if len(even) == len(fewest) else fewest
