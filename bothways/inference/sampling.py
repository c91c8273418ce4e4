"""Which token comes next: greedy, or drawn from the softmax with temperature, top-k, top-p, min-p and a repetition
penalty.

Shapes: N sequences, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bothways.inference.generation_options import GenerationOptions


def filtered_logits(logits: Tensor, options: GenerationOptions, past: Sequence[Tensor] = ()) -> Tensor:
    """The logits whose softmax the next token is drawn from: `[N, V]` → float32 `[N, V]`, -inf where nothing is drawn.

    past: the ids of each sequence so far, int64 `[length]`; wanted where `options.uses_the_past`.
    """
    logits = logits.float()
    if options.uses_the_past:
        logits = logits.clone()
        for row, ids in zip(logits, past, strict=True):
            ids = ids.unique()
            there = row[ids]
            row[ids] = torch.where(there > 0, there / options.repetition_penalty, there * options.repetition_penalty)
    if options.temperature != 1:
        logits = logits / options.temperature
    if 0 < options.top_k < logits.shape[-1]:
        least = logits.topk(options.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if options.top_p < 1:
        ordered, order = logits.sort(descending=True)
        shares = ordered.softmax(-1)
        beyond = shares.cumsum(-1) - shares >= options.top_p
        logits = logits.masked_fill(beyond.scatter(1, order, beyond), float("-inf"))
    if options.min_p > 0:
        relative = (logits - logits.amax(-1, keepdim=True)).exp()
        logits = logits.masked_fill(relative < options.min_p, float("-inf"))
    return logits


def draw_tokens(logits: Tensor, uniforms: Tensor) -> Tensor:
    """One token of each row's softmax, by inversion: `[N, V]` logits, float64 `[N]` in [0, 1) → int64 `[N]`."""
    cumulated = (logits - logits.amax(-1, keepdim=True)).exp().cumsum(-1, dtype=torch.float64)
    # scaled by the sum, so that a draw never falls behind the last token that can be drawn
    chosen = torch.searchsorted(cumulated, uniforms[:, None] * cumulated[:, -1:], right=True)
    return chosen[:, 0].clamp(max=logits.shape[-1] - 1)
