"""What a model does with one text, step by step, with everything kept: the same parts as the fast path, with attention
written out.

Shapes: T tokens, H hidden, A heads, D = H/A, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from bothways.batch import PackedBatch
from bothways.model.encoder import Encoder, Layer


@dataclass
class Record:
    """One sequence's way through an encoder.

    embeddings: `[T, H]`, what the first layer reads. Of each layer: queries, keys, values `[A, T, D]`; scores
    `[A, T, T]`, q·k/√D before mask and softmax; weights `[A, T, T]`, whose rows sum to one; hidden `[T, H]`, what it
    gives on. causal: whether tokens see only themselves and what is before them.
    """

    embeddings: Tensor
    queries: list[Tensor]
    keys: list[Tensor]
    values: list[Tensor]
    scores: list[Tensor]
    weights: list[Tensor]
    hidden: list[Tensor]
    causal: bool

    @property
    def states(self) -> list[Tensor]:
        """Embeddings and every layer's output: L + 1 of `[T, H]`."""
        return [self.embeddings, *self.hidden]


def record(
    encoder: Encoder, batch: PackedBatch, causal: bool | None = None, embeddings: Tensor | None = None
) -> Record:
    """Run one sequence through an encoder in eval mode.

    causal: the mask to use; by default the model's own. embeddings: `[T, H]` to read instead of the batch's, for
    attribution. Gradients are kept where the caller has not turned them off.
    """
    assert batch.num_sequences == 1
    layers = cast("Sequence[Layer]", encoder.layers)
    causal = encoder.config.is_decoder if causal is None else causal
    hidden = encoder.embeddings(batch) if embeddings is None else embeddings
    seen = Record(hidden, [], [], [], [], [], [], causal)
    future = torch.ones(batch.num_tokens, batch.num_tokens, dtype=torch.bool, device=hidden.device).triu(1)
    for layer in layers:
        q, k, v = (part.transpose(0, 1) for part in layer.attention.project(hidden))
        scores = q @ k.mT / q.shape[-1] ** 0.5
        weights = (scores.masked_fill(future, float("-inf")) if causal else scores).softmax(-1)
        if weights.requires_grad:
            weights.retain_grad()
        attended = (weights @ v).transpose(0, 1).flatten(1)
        hidden = layer.finish(hidden, layer.attention.output(attended))
        for kept, one in zip(
            (seen.queries, seen.keys, seen.values, seen.scores, seen.weights, seen.hidden),
            (q, k, v, scores, weights, hidden),
            strict=True,
        ):
            kept.append(one)
    return seen


def rollout(weights: Sequence[Tensor]) -> list[Tensor]:
    """Attention to the tokens of the text itself through all layers up to each, L of `[T, T]`, rows sum to one: heads
    averaged, half of each token kept for the residual (Abnar and Zuidema 2020, section 3)."""
    reached, made = torch.eye(weights[0].shape[-1], device=weights[0].device, dtype=weights[0].dtype), []
    for layer in weights:
        mixed = (layer.mean(0) + torch.eye(layer.shape[-1], device=layer.device, dtype=layer.dtype)) / 2
        reached = mixed @ reached
        made.append(reached)
    return made


def gradient_weighted(weights: Sequence[Tensor]) -> list[Tensor]:
    """Attention that spoke for what was decided, L of `[T, T]`: weights times their gradients, negative ones left out,
    heads averaged (Chefer, Gur and Wolf 2021, equation 5). Call it after `backward` on the decision's score."""
    products = []
    for one in weights:
        assert one.grad is not None
        products.append((one.detach() * one.grad).clamp(min=0).mean(0))
    return products
