"""Attention for training on a CPU as one compiled call, `native/attention_forward.cpp` and `attention_backward.cpp`.

Sequences may have any lengths in any order; only queries, keys and values are kept for the backward pass. On two
AVX-512 cores, forward and backward with dropout for 12 heads of 32, it takes 0.3 of the time of torch's operators for
sequences of 4 to 30 tokens, 0.5 for 30 to 80, 0.7 for 300 to 384. Where all sequences have the same length it takes 0.7
to 1.0 without dropout, causal or not; with dropout and heads of 64 it takes 0.5 in float32. In bfloat16 it takes 1.2 to
1.3 there, since it multiplies in float32.

Shapes: T tokens, N sequences, A heads, D = H/A.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bothways.model.attention_mask import AttentionMask
from bothways.model.dropout import draw_63_bits
from bothways.native.loading import library, mirror_structure


@mirror_structure
class AttentionCall(ctypes.Structure):
    """The structure of `native/attention.h`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "dout", "out", "dq", "dk", "dv", "lengths")),
        *((name, ctypes.c_int64) for name in ("sequences", "heads", "head_size", "qkv_stride", "dqkv_stride")),
        *((name, ctypes.c_int64) for name in ("causal", "window", "is_bfloat16", "threads")),
        ("seed", ctypes.c_uint64),
        ("dropout", ctypes.c_double),
    ]


@dataclass(frozen=True)
class _Options:
    """What both directions of a call share besides tensors."""

    causal: bool
    window: int | None
    dropout: float
    seed: int


def attend_compiled(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, mask: AttentionMask, dropout: float) -> Tensor:
    """Attention of every token to its own sequence, differentiable once.

    q, k, v: `[T, A, D]`, all float32 or all bfloat16. lengths: integers `[N]`, which sum to T. dropout: probability of
    dropping an attention weight, 0 to below 1; one draw of torch's CPU generator decides which are dropped.
    Returns `[T, A, D]`. Raises ValueError when shapes, types or lengths do not match, torch.OutOfMemoryError when
    memory runs out.
    """
    if not (q.shape == k.shape == v.shape and q.dtype == k.dtype == v.dtype):
        described = ", ".join(f"{tensor.dtype} {list(tensor.shape)}" for tensor in (q, k, v))
        raise ValueError(f"queries, keys and values are not alike: {described}")
    if (lengths < 0).any() or int(lengths.sum()) != len(q):
        raise ValueError(f"the lengths of the sequences come to {int(lengths.sum())}, and there are {len(q)} tokens")
    if mask.bias is not None:
        raise ValueError("compiled attention adds no bias to the scores")
    options = _Options(mask.causal, mask.window, dropout, draw_63_bits() if dropout else 0)
    attended: Tensor = _Attention.apply(q, k, v, lengths.long().contiguous(), options)
    return attended


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, options: _Options) -> Tensor:
        q, k, v = _with_equal_strides(q, k, v)
        out = q.new_empty(q.shape)
        call = _attention_call(q, k, v, lengths, options)
        call.out = out.data_ptr()
        _run("bothways_attend", call)
        ctx.save_for_backward(q, k, v, lengths)
        ctx.options = options
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, lengths = ctx.saved_tensors
        dout = dout.contiguous()
        dqkv = q.new_empty((len(q), 3, *q.shape[1:]))
        dq, dk, dv = dqkv.unbind(1)
        call = _attention_call(q, k, v, lengths, ctx.options)
        call.dout, call.dqkv_stride = dout.data_ptr(), dqkv.stride(0)
        call.dq, call.dk, call.dv = dq.data_ptr(), dk.data_ptr(), dv.data_ptr()
        _run("bothways_attend_backward", call)
        return dq, dk, dv, None, None


def _with_equal_strides(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors with one stride from token to token and each token's numbers side by side; copied only if needed."""
    token_stride, head_size = tensors[0].stride(0), tensors[0].shape[-1]
    equal = all(tensor.stride() == (token_stride, head_size, 1) for tensor in tensors)
    return tensors if equal else tuple(tensor.contiguous() for tensor in tensors)


def _attention_call(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, options: _Options) -> AttentionCall:
    """The arguments that both directions share."""
    return AttentionCall(
        q=q.data_ptr(),
        k=k.data_ptr(),
        v=v.data_ptr(),
        lengths=lengths.data_ptr(),
        sequences=len(lengths),
        heads=q.shape[1],
        head_size=q.shape[2],
        qkv_stride=q.stride(0),
        causal=options.causal,
        window=-1 if options.window is None else options.window,
        is_bfloat16=q.dtype == torch.bfloat16,
        threads=torch.get_num_threads(),
        seed=options.seed,
        dropout=options.dropout,
    )


def _run(function: str, call: AttentionCall) -> None:
    compiled = library()
    assert compiled is not None
    if not getattr(compiled, function)(ctypes.byref(call)):
        raise torch.OutOfMemoryError("attention: memory ran out")
