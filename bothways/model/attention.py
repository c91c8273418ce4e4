"""Self-attention over a packed batch: one function, several kernels, one reference.

Shapes: T tokens in all, N sequences, A heads, D = H/A. Sequence n is rows `cu_seqlens[n]:cu_seqlens[n+1]`; no token
sees another sequence. Every kernel computes softmax(q kᵀ / √D) v (Vaswani et al. 2017, section 3.2.1).
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bothways.model.dropout import keep_mask
from bothways.model.kernels.compiled import attend_compiled
from bothways.native import has_training_kernels


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    causal: bool = False,
    *,
    lengths: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of every token to its own sequence, by the fastest kernel for the device.

    Which kernel that is depends on the device, the dtype, dropout and, on a CPU, whether gradients are recorded. So the
    same model gives other bits under `torch.no_grad` than with gradients, the same numbers up to rounding.

    q, k, v: `[T, A, D]`. cu_seqlens: int32 `[N+1]`. lengths: int64 `[N]` on the CPU, to spare a device question.
    causal: token t sees tokens up to t only. dropout: probability of dropping an attention weight.
    Returns `[T, A, D]`.
    """
    if not dropout and _has_varlen(q):
        return _attend_varlen(q, k, v, cu_seqlens, max_seqlen, causal)
    if lengths is None:
        lengths = cu_seqlens.diff().cpu()
    if (dropout or torch.is_grad_enabled()) and has_training_kernels(q):
        return attend_compiled(q, k, v, lengths, causal, dropout)
    if not dropout and not q.is_cuda:
        needs_grad = torch.is_grad_enabled() or torch.compiler.is_compiling()
        return (grouped if needs_grad else _flash_runs)(q, k, v, lengths, causal)[0]
    return attend_grouped(q, k, v, lengths, causal, dropout)


def attend_grouped(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, causal: bool = False, dropout: float = 0.0
) -> Tensor:
    """Attention one run of equally long sequences at a time, each a plain batch without padding.

    Costs one kernel call a run, so callers put sequences in order of length. `split` and `cat` keep the backward pass
    free of full-size zero buffers, which slicing would fill once a run.
    """
    outputs = []
    by_hand = dropout > 0 and not q.is_cuda
    for (count, length), *parts in _by_runs(lengths, q, k, v):
        query, key, value = (_as_batch(part, count, length) for part in parts)
        if by_hand:
            output: Tensor = _DroppedAttention.apply(query, key, value, causal, dropout)
        else:
            output = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=causal)
        outputs.append(output.transpose(1, 2).flatten(0, 1))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


class _DroppedAttention(torch.autograd.Function):
    """Attention with dropout of its weights on a CPU: `[B, A, L, D]` → `[B, A, L, D]`.

    What `scaled_dot_product_attention` does there goes some fifteen times over the `L × L` weights, forward and
    backward, and draws their dropout slowly.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool, dropout: float) -> Tensor:
        shape, scale = q.shape, q.shape[-1] ** -0.5
        q = (q * scale).reshape(-1, *shape[2:])
        k, v = (part.reshape(-1, *shape[2:]) for part in (k, v))
        scores = torch.bmm(q, k.mT)
        if causal:
            scores.masked_fill_(torch.ones(scores.shape[1:], dtype=torch.bool).triu(1), float("-inf"))
        weights = scores.softmax(-1)
        keep = keep_mask(weights, dropout)
        dropped = torch.mul(weights, keep, out=scores)
        ctx.scale, ctx.share = scale, 1 / (1 - dropout)
        ctx.save_for_backward(q, k, v, weights, keep, dropped)
        return torch.bmm(dropped, v).mul_(ctx.share).reshape(shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights, keep, dropped = ctx.saved_tensors
        shape, grad = grad.shape, (grad * ctx.share).reshape(q.shape)
        of_weights = torch.bmm(grad, v.mT).mul_(keep)
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_q = torch.bmm(of_scores, k).mul_(ctx.scale)
        grads = (of_q, torch.bmm(of_scores.mT, q), torch.bmm(dropped.mT, grad))
        return (*(one.reshape(shape) for one in grads), None, None)


@torch.library.custom_op("bothways::grouped", mutates_args=())
def grouped(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """`attend_grouped` for the CPU as one operator, so that `torch.compile` sees one node whatever the lengths are.

    Returns the outputs `[T, A, D]` and, for the backward pass, the log-sum-exp of each row's scores `[T, A]`.
    """
    return _flash_runs(q, k, v, lengths, causal)


def _flash_runs(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """What `grouped` does; called by itself it is spared an operator's dispatch, 0.1 ms a layer."""
    output = torch.empty_like(q, memory_format=torch.contiguous_format)
    logsumexp = q.new_empty(q.shape[:2], dtype=torch.promote_types(q.dtype, torch.float32))
    for (count, length), *parts, out, sums in _by_runs(lengths, q, k, v, output, logsumexp):
        query, key, value = (_as_batch(part, count, length) for part in parts)
        attended, scale = _FLASH(query, key, value, 0.0, causal)
        _as_batch(out, count, length).copy_(attended)
        sums.unflatten(0, (count, length)).copy_(scale.transpose(1, 2))
    return output, logsumexp


@grouped.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    logsumexp = q.new_empty(q.shape[:2], dtype=torch.promote_types(q.dtype, torch.float32))
    return torch.empty_like(q, memory_format=torch.contiguous_format), logsumexp


@torch.library.custom_op("bothways::grouped_backward", mutates_args=())
def _grouped_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, output: Tensor, logsumexp: Tensor, lengths: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    grads = tuple(torch.empty_like(part, memory_format=torch.contiguous_format) for part in (q, k, v))
    rows = _by_runs(lengths, grad, q, k, v, output, *grads, logsumexp)
    for (count, length), *parts, sums in rows:
        batches = [_as_batch(part, count, length) for part in parts]
        scale = sums.unflatten(0, (count, length)).transpose(1, 2)
        for into, values in zip(batches[5:], _FLASH_BACKWARD(*batches[:5], scale, 0.0, causal), strict=True):
            into.copy_(values)
    return grads[0], grads[1], grads[2]


@_grouped_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, output: Tensor, logsumexp: Tensor, lengths: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    empty = [torch.empty_like(part, memory_format=torch.contiguous_format) for part in (q, k, v)]
    return empty[0], empty[1], empty[2]


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.causal = inputs
    ctx.save_for_backward(*tensors, *output)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, lengths, output, logsumexp = ctx.saved_tensors
    grads = _grouped_backward(grad.contiguous(), q, k, v, output, logsumexp, lengths, ctx.causal)
    return (*grads, None, None)


grouped.register_autograd(_differentiate, setup_context=_remember)

# What `scaled_dot_product_attention` runs on a CPU, and its derivative.
_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def _by_runs(lengths: Tensor, *parts: Tensor) -> Iterator[tuple[Any, ...]]:
    """`((count, length), *slices)` for each run of equally long sequences."""
    runs = [(len(list(run)), length) for length, run in itertools.groupby(lengths.tolist())]
    sizes = [count * length for count, length in runs]
    return zip(runs, *(part.split(sizes) for part in parts), strict=True)


def _as_batch(rows: Tensor, count: int, length: int) -> Tensor:
    """`[count * L, A, D]` as `[count, A, L, D]`."""
    return rows.unflatten(0, (count, length)).transpose(1, 2)


def attend_eager(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, causal: bool = False) -> tuple[Tensor, list[Tensor]]:
    """The reference, one sequence at a time, written out; also returns the weights, N tensors `[A, L_n, L_n]`.

    Rows of the weights sum to one; with `causal` everything above the diagonal is zero.
    """
    outputs, weights = [], []
    for query, key, value in zip(*(part.split(lengths.tolist()) for part in (q, k, v)), strict=True):
        scores = torch.einsum("iad,jad->aij", query, key) / query.shape[-1] ** 0.5
        if causal:
            upper = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
            scores = scores.masked_fill(upper, float("-inf"))
        probabilities = scores.softmax(-1)
        outputs.append(torch.einsum("aij,jad->iad", probabilities, value))
        weights.append(probabilities)
    return torch.cat(outputs), weights


if torch.cuda.is_available():  # importing it takes a second, which a CPU need not wait
    from torch.nn.attention.varlen import varlen_attn

    # Causality is `is_causal` up to torch 2.10, then a window.
    _BY_WINDOW = "window_size" in inspect.signature(varlen_attn).parameters


def _has_varlen(q: Tensor) -> bool:
    half = q.dtype in (torch.bfloat16, torch.float16)
    return q.is_cuda and half and torch.cuda.get_device_capability(q.device) >= (8, 0)


def _attend_varlen(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int, causal: bool) -> Tensor:
    """torch's own FlashAttention over `cu_seqlens`, on CUDA in half precision."""
    option: dict[str, Any] = {"window_size": (-1, 0) if causal else (-1, -1)} if _BY_WINDOW else {"is_causal": causal}
    attended: Any = varlen_attn(q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, **option)
    return attended
