"""The packed batch, and how sequences fill a token budget."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bothways.batch import pack, pack_sequences
from bothways.token_budget import cut_to_budget


def test_positions_and_boundaries() -> None:
    batch = pack_sequences([(np.array([5, 6, 7]), np.zeros(3, int)), (np.array([8, 9]), np.array([0, 1]))])
    assert batch.input_ids.tolist() == [5, 6, 7, 8, 9]
    assert batch.position_ids.tolist() == [0, 1, 2, 0, 1]
    assert batch.cu_seqlens.tolist() == [0, 3, 5]
    assert batch.cu_seqlens.dtype == torch.int32
    assert (batch.max_seqlen, batch.num_sequences, batch.num_tokens) == (3, 2, 5)
    with pytest.raises(AssertionError, match="lengths sum to 4"):
        pack(np.zeros(5), np.zeros(5), np.array([2, 2]))


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 120))
def test_budgets_are_kept_and_nothing_is_lost(lengths: list[int], budget: int) -> None:
    parts = list(cut_to_budget(lengths, budget))
    assert [length for part in parts for length in lengths[part]] == lengths
    for part in parts:
        assert sum(lengths[part]) <= budget or part.stop - part.start == 1
    for part, following in itertools.pairwise(parts):
        assert sum(lengths[part]) + lengths[following.start] > budget
