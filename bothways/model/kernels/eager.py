"""The reference of attention: the definition written out, one sequence at a time.

Shapes: T tokens, N sequences, L tokens of one sequence, A heads, D = H/A.
"""

from __future__ import annotations

import torch
from torch import Tensor


def attend_eager(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, causal: bool = False) -> tuple[Tensor, list[Tensor]]:
    """softmax(q kᵀ / √D) v of each sequence by itself.

    q, k, v: `[T, A, D]` on any device, of any float type; lengths: integers `[N]` that sum to T; causal: token t sees
    tokens up to t only.
    Returns the outputs `[T, A, D]` and the weights, N tensors `[A, L, L]`: their rows sum to one, and with `causal`
    everything above the diagonal is zero. Differentiable any number of times.
    """
    outputs, weights = [], []
    for query, key, value in zip(*(tensor.split(lengths.tolist()) for tensor in (q, k, v)), strict=True):
        scores = scaled_scores(query.transpose(0, 1), key.transpose(0, 1))
        if causal:
            future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
            scores = scores.masked_fill(future, float("-inf"))
        probabilities = scores.softmax(-1)
        outputs.append((probabilities @ value.transpose(0, 1)).transpose(0, 1))
        weights.append(probabilities)
    return torch.cat(outputs), weights


def scaled_scores(q: Tensor, k: Tensor) -> Tensor:
    """q kᵀ / √D of queries and keys `[A, L, D]`: `[A, L, L]`, before mask and softmax."""
    return q @ k.mT / q.shape[-1] ** 0.5
