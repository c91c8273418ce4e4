"""What a model does with one text, step by step, with everything kept: the model's own layers, with the reference of
attention instead of a fast kernel.

Shapes: T tokens, H hidden, A heads, D = H/A, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bothways.batch import PackedBatch
from bothways.model.attention_mask import AttentionMask
from bothways.model.encoder import Encoder
from bothways.model.kernels.eager import attend_eager, scaled_scores


@dataclass
class Record:
    """One sequence's way through an encoder.

    embeddings: `[T, H]`, what the first layer reads. causal: whether tokens see only themselves and what is before
    them. Of each layer: queries, keys, values `[A, T, D]`; weights `[A, T, T]`, whose rows sum to one; hidden `[T, H]`,
    what it gives on.
    """

    embeddings: Tensor
    causal: bool
    queries: list[Tensor] = field(default_factory=list)
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)

    @property
    def states(self) -> list[Tensor]:
        """Embeddings and every layer's output: L + 1 of `[T, H]`."""
        return [self.embeddings, *self.hidden]

    @property
    def scores(self) -> list[Tensor]:
        """q kᵀ / √D of each layer before mask and softmax: L of `[A, T, T]`."""
        return [scaled_scores(q, k) for q, k in zip(self.queries, self.keys, strict=True)]

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask, dropout: float
    ) -> Tensor:
        """The reference of attention, causal as the record is; what it reads and makes is added to the record."""
        attended, (weights,) = attend_eager(q, k, v, batch.lengths, replace(mask, causal=self.causal))
        if weights.requires_grad:
            weights.retain_grad()
        self.weights.append(weights)
        for kept, tensor in zip((self.queries, self.keys, self.values), (q, k, v), strict=True):
            kept.append(tensor.transpose(0, 1))
        return attended


def record(
    encoder: Encoder, batch: PackedBatch, causal: bool | None = None, embeddings: Tensor | None = None
) -> Record:
    """Run one sequence through an encoder in eval mode.

    causal: the mask to use; by default the model's own. embeddings: `[T, H]` to read instead of the batch's, for
    attribution. Gradients are kept where the caller has not turned them off.
    """
    assert batch.num_sequences == 1
    made = Record(
        encoder.embeddings(batch) if embeddings is None else embeddings,
        encoder.config.is_decoder if causal is None else causal,
    )
    encoder.run_layers(made.embeddings, batch, attend=made.attend, visit=made.hidden.append)
    return made


def rollout(weights: Sequence[Tensor]) -> list[Tensor]:
    """For each layer, how much of every token of the text reaches every other through all layers up to it: L of
    `[T, T]`, rows sum to one. Heads are averaged, and half of each token is kept for the residual (Abnar and Zuidema
    2020, section 3)."""
    reached, made = torch.eye(weights[0].shape[-1], device=weights[0].device, dtype=weights[0].dtype), []
    for layer in weights:
        mixed = (layer.mean(0) + torch.eye(layer.shape[-1], device=layer.device, dtype=layer.dtype)) / 2
        reached = mixed @ reached
        made.append(reached)
    return made


def gradient_weighted(weights: Sequence[Tensor]) -> list[Tensor]:
    """Attention that spoke for the decision, L of `[T, T]`: weights times their gradients, negative products left out,
    heads averaged (Chefer, Gur and Wolf 2021, equation 5). Call it after `backward` on the decision's score."""
    products = []
    for layer in weights:
        assert layer.grad is not None
        products.append((layer.detach() * layer.grad).clamp(min=0).mean(0))
    return products
