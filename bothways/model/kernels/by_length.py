"""Attention one group of equally long sequences at a time, each group a plain batch without padding.

Costs one kernel call a group, so callers put sequences in order of length.

Shapes: T tokens, N sequences; in a group B sequences of L tokens; A heads, D = H/A.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bothways.batch import PackedBatch
from bothways.model.attention_mask import AttentionMask

# What `scaled_dot_product_attention` runs on a CPU, and its derivative.
_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def equal_lengths(lengths: Tensor) -> list[tuple[int, int]]:
    """`(count, length)` of each group: consecutive sequences of one length."""
    return [(len(list(group)), length) for length, group in itertools.groupby(lengths.tolist())]


def split_groups(tensor: Tensor, groups: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
    """`[T, …]` cut at the groups' ends, without a copy.

    `split` and a later `cat` keep the backward pass free of full-size zero buffers, which slicing would fill once a
    group.
    """
    return tensor.split([count * length for count, length in groups])


def grouped(lengths: Tensor, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """For each group the tensors `[T, A, D]` as batches `[B, A, L, D]`, without a copy."""
    groups = equal_lengths(lengths)
    for (count, length), *parts in zip(groups, *(split_groups(tensor, groups) for tensor in tensors), strict=True):
        yield tuple(part.unflatten(0, (count, length)).transpose(1, 2) for part in parts)


def ungrouped(outputs: Sequence[Tensor]) -> Tensor:
    """The groups' outputs `[B, A, L, D]` end to end, `[T, A, D]`."""
    flat = [output.transpose(1, 2).flatten(0, 1) for output in outputs]
    return flat[0] if len(flat) == 1 else torch.cat(flat)


def attend_by_length(
    q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask, dropout: float
) -> Tensor:
    """`scaled_dot_product_attention` of each group, on any device, differentiated by torch's autograd."""
    assert mask.is_plain
    return ungrouped(
        [
            F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=mask.causal)
            for query, key, value in grouped(batch.lengths, q, k, v)
        ]
    )


def attend_flash(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask, dropout: float) -> Tensor:
    """torch's FlashAttention for CPUs on each group, without dropout; gradients where they are recorded.

    The operator is called directly where no gradient is needed: that saves 0.1 ms a layer of its dispatch.
    """
    assert not dropout, "torch's FlashAttention for CPUs has no dropout"
    assert mask.is_plain
    as_operator = torch.is_grad_enabled() or torch.compiler.is_compiling()
    return (flash_by_length if as_operator else _flash)(q, k, v, batch.lengths, mask.causal)[0]


@torch.library.custom_op("bothways::flash_by_length", mutates_args=())
def flash_by_length(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """`attend_flash` as one operator, so that `torch.compile` sees one node whatever the lengths are.

    Returns the outputs `[T, A, D]` and, for the backward pass, the log-sum-exp of each row's scores `[T, A]`.
    """
    return _flash(q, k, v, lengths, causal)


def _flash(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    output, logsumexp = _outputs_like(q)
    groups = grouped(lengths, q, k, v, output, logsumexp[..., None])
    for query, key, value, into, into_logsumexp in groups:
        attended, sums = _FLASH(query, key, value, 0.0, causal)
        into.copy_(attended)
        into_logsumexp.squeeze(-1).copy_(sums)
    return output, logsumexp


def _outputs_like(q: Tensor) -> tuple[Tensor, Tensor]:
    logsumexp = q.new_empty(q.shape[:2], dtype=torch.promote_types(q.dtype, torch.float32))
    return torch.empty_like(q, memory_format=torch.contiguous_format), logsumexp


@flash_by_length.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    return _outputs_like(q)


# Saved by the forward pass: q, k, v, output, logsumexp, lengths.
@torch.library.custom_op("bothways::flash_by_length_backward", mutates_args=())
def _flash_backward(grad: Tensor, saved: Sequence[Tensor], causal: bool) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, output, logsumexp, lengths = saved
    dq, dk, dv = _gradients_like(saved)
    groups = grouped(lengths, grad, q, k, v, output, logsumexp[..., None], dq, dk, dv)
    for upstream, query, key, value, attended, sums, into_dq, into_dk, into_dv in groups:
        of_group = _FLASH_BACKWARD(upstream, query, key, value, attended, sums.squeeze(-1), 0.0, causal)
        for into, gradient in zip((into_dq, into_dk, into_dv), of_group, strict=True):
            into.copy_(gradient)
    return dq, dk, dv


def _gradients_like(saved: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in saved[:3])
    return q, k, v


@_flash_backward.register_fake
def _(grad: Tensor, saved: Sequence[Tensor], causal: bool) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients_like(saved)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, lengths, ctx.causal = inputs
    ctx.save_for_backward(q, k, v, *output, lengths)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    dq, dk, dv = _flash_backward(grad.contiguous(), list(ctx.saved_tensors), ctx.causal)
    return dq, dk, dv, None, None


flash_by_length.register_autograd(_backward, setup_context=_save)
