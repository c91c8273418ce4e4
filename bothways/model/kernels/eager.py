"""The reference of attention: the definition written out, one sequence at a time.

Shapes: T tokens, N sequences, L tokens of one sequence, A heads, D = H/A.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bothways.model.attention_mask import BOTH_WAYS, AttentionMask, places


def attend_eager(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, mask: AttentionMask = BOTH_WAYS
) -> tuple[Tensor, list[Tensor]]:
    """softmax(q kᵀ / √D + bias) v of each sequence by itself.

    q, k, v: `[T, A, D]` on any device, of any float type; lengths: integers `[N]` that sum to T.
    Returns the outputs `[T, A, D]` and the weights, N tensors `[A, L, L]`: their rows sum to one, and what
    the mask does not let a token see is zero. Differentiable any number of times.
    """
    outputs, weights = [], []
    for query, key, value in zip(*(tensor.split(lengths.tolist()) for tensor in (q, k, v)), strict=True):
        scores = scaled_scores(query.transpose(0, 1), key.transpose(0, 1))
        order = places(0, len(query), q)
        if mask.bias is not None:
            scores = scores + mask.by_distance(order, order)
        if (seen := mask.seen(order, order)) is not None:
            scores = scores.masked_fill(~seen, float("-inf"))
        probabilities = scores.softmax(-1)
        outputs.append((probabilities @ value.transpose(0, 1)).transpose(0, 1))
        weights.append(probabilities)
    return torch.cat(outputs), weights


def scaled_scores(q: Tensor, k: Tensor) -> Tensor:
    """q kᵀ / √D of queries and keys `[A, L, D]`: `[A, L, L]`, before mask and softmax."""
    return q @ k.mT / q.shape[-1] ** 0.5
