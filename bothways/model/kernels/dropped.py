"""Attention with dropout of its weights on a CPU, in torch's operators.

What `scaled_dot_product_attention` does there goes some fifteen times over the `L × L` weights, forward and backward,
and draws their dropout slowly.

Shapes: T tokens; in a group of equally long sequences B of L tokens; A heads, D = H/A.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bothways.batch import PackedBatch
from bothways.model.attention_mask import AttentionMask
from bothways.model.dropout import keep_mask
from bothways.model.kernels.by_length import grouped, ungrouped


def attend_dropped(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask, dropout: float) -> Tensor:
    """Attention of each group of equally long sequences; which weights are dropped follows from torch's CPU generator.

    dropout: above 0 and below 1. Differentiable once.
    """
    assert mask.is_plain
    groups = grouped(batch.lengths, q, k, v)
    return ungrouped([_DroppedAttention.apply(*parts, mask.causal, dropout) for parts in groups])


class _DroppedAttention(torch.autograd.Function):
    """`[B, A, L, D]` → `[B, A, L, D]`. With P = softmax(q kᵀ / √D), the mask M of what is kept and p = dropout:

    out = (P ∘ M) v / (1 - p);   dP = M ∘ (dout vᵀ) / (1 - p);   dS = P ∘ (dP - rowsum(P ∘ dP));
    dq = dS k / √D;   dk = dSᵀ q / √D;   dv = (P ∘ M)ᵀ dout / (1 - p).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool, dropout: float) -> Tensor:
        shape, scale = q.shape, q.shape[-1] ** -0.5
        q = (q * scale).reshape(-1, *shape[2:])
        k, v = (tensor.reshape(-1, *shape[2:]) for tensor in (k, v))
        scores = torch.bmm(q, k.mT)
        if causal:
            scores.masked_fill_(torch.ones(scores.shape[1:], dtype=torch.bool).triu(1), float("-inf"))
        weights = scores.softmax(-1)
        keep = keep_mask(weights, dropout)
        dropped = torch.mul(weights, keep, out=scores)
        ctx.scale, ctx.gain = scale, 1 / (1 - dropout)
        ctx.save_for_backward(q, k, v, weights, keep, dropped)
        return torch.bmm(dropped, v).mul_(ctx.gain).reshape(shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights, keep, dropped = ctx.saved_tensors  # q is scaled already
        shape, grad = grad.shape, (grad * ctx.gain).reshape(q.shape)
        grad_weights = torch.bmm(grad, v.mT).mul_(keep)
        grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
        dq = torch.bmm(grad_scores, k).mul_(ctx.scale)
        dk = torch.bmm(grad_scores.mT, q)
        dv = torch.bmm(dropped.mT, grad)
        return dq.reshape(shape), dk.reshape(shape), dv.reshape(shape), None, None
