"""Self-attention over a packed batch: one function, several kernels, one reference.

Shapes: T tokens in all, N sequences, A heads, D = H/A. Sequence n is rows `cu_seqlens[n]:cu_seqlens[n+1]`; no token
sees another sequence. Every kernel computes softmax(q kᵀ / √D) v (Vaswani et al. 2017, section 3.2.1).
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    causal: bool = False,
    *,
    lengths: Sequence[int] | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of every token to its own sequence, by the fastest kernel for the device.

    q, k, v: `[T, A, D]`. cu_seqlens: int32 `[N+1]`. lengths: the same as Python integers, to spare a device question.
    causal: token t sees tokens up to t only. dropout: probability of dropping an attention weight.
    Returns `[T, A, D]`.
    """
    if not dropout and q.is_cuda and q.dtype in (torch.bfloat16, torch.float16):
        return _varlen_kernel()(q, k, v, cu_seqlens, max_seqlen, causal)
    if lengths is None:
        lengths = cu_seqlens.diff().tolist()
    return attend_grouped(q, k, v, lengths, causal, dropout)


def attend_grouped(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], causal: bool = False, dropout: float = 0.0
) -> Tensor:
    """Attention one run of equally long sequences at a time, each a plain batch without padding.

    Costs one kernel call a run, so callers put sequences in order of length. `split` and `cat` keep the backward pass
    free of full-size zero buffers, which slicing would fill once a run.
    """
    runs = [(length, len(list(run))) for length, run in itertools.groupby(lengths)]
    sizes = [length * count for length, count in runs]
    outputs = []
    for (length, count), *parts in zip(runs, q.split(sizes), k.split(sizes), v.split(sizes), strict=True):
        # [count * L, A, D] -> [count, A, L, D]
        query, key, value = (part.unflatten(0, (count, length)).transpose(1, 2) for part in parts)
        output = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=causal)
        outputs.append(output.transpose(1, 2).flatten(0, 1))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def attend_eager(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], causal: bool = False
) -> tuple[Tensor, list[Tensor]]:
    """The reference, one sequence at a time, written out; also returns the weights, N tensors `[A, L_n, L_n]`.

    Rows of the weights sum to one; with `causal` everything above the diagonal is zero.
    """
    outputs, weights = [], []
    for query, key, value in zip(*(part.split(list(lengths)) for part in (q, k, v)), strict=True):
        scores = torch.einsum("iad,jad->aij", query, key) / query.shape[-1] ** 0.5
        if causal:
            upper = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
            scores = scores.masked_fill(upper, float("-inf"))
        probabilities = scores.softmax(-1)
        outputs.append(torch.einsum("aij,jad->iad", probabilities, value))
        weights.append(probabilities)
    return torch.cat(outputs), weights


@functools.cache
def _varlen_kernel() -> Callable[[Tensor, Tensor, Tensor, Tensor, int, bool], Tensor]:
    """torch's own FlashAttention over `cu_seqlens`; causality is `is_causal` up to torch 2.10, then a window."""
    from torch.nn.attention.varlen import varlen_attn

    by_window = "window_size" in inspect.signature(varlen_attn).parameters

    def kernel(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int, causal: bool) -> Tensor:
        option = {"window_size": (-1, 0) if causal else (-1, -1)} if by_window else {"is_causal": causal}
        attended: Any = varlen_attn(q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, **option)
        return attended

    return kernel
