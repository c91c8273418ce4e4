"""Attention for training on a CPU as one compiled call, `native/attention.cpp`, where that was built.

Sequences may have any lengths in any order; nothing but queries, keys and values is kept for the backward pass. On two
AVX-512 cores, forward and backward with dropout for 12 heads of 32, it takes 0.3 of the time of torch's operators for
sequences of 4 to 30 tokens, 0.5 for 30 to 80, 0.7 for 300 to 384. Where all sequences are of one length it takes 0.7 to
1.0 without dropout, causal or not; with dropout and heads of 64 it takes 0.5 in float32 and, as products are in float32
here too, 1.2 to 1.3 in bfloat16.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bothways.model.dropout import draw_seed
from bothways.native import library


class _Call(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "of_out", "out", "of_q", "of_k", "of_v", "lengths")),
        *(
            (name, ctypes.c_int64)
            for name in ("sequences", "heads", "size", "stride", "of_stride", "causal", "half", "threads")
        ),
        ("seed", ctypes.c_uint64),
        ("dropout", ctypes.c_double),
    ]


def attend_compiled(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, causal: bool, dropout: float) -> Tensor:
    """q, k, v: `[T, A, D]`, all float32 or all bfloat16; lengths: integers `[N]`, summing to T. Returns `[T, A, D]`.

    Which weights are dropped follows from one draw of torch's CPU generator. Differentiable once.
    Raises ValueError when shapes, types or lengths do not match, torch.OutOfMemoryError when memory runs out.
    """
    if not (q.shape == k.shape == v.shape and q.dtype == k.dtype == v.dtype):
        described = ", ".join(f"{part.dtype} {list(part.shape)}" for part in (q, k, v))
        raise ValueError(f"queries, keys and values are not alike: {described}")
    if (lengths < 0).any() or int(lengths.sum()) != len(q):
        raise ValueError(f"the lengths of the sequences come to {int(lengths.sum())}, and there are {len(q)} tokens")
    seed = draw_seed() if dropout else 0
    attended: Tensor = _Attention.apply(q, k, v, lengths.long().contiguous(), causal, dropout, seed)
    return attended


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, causal: bool, dropout: float, seed: int
    ) -> Tensor:
        q, k, v = _alike(q, k, v)
        out = q.new_empty(q.shape)
        call = _call(q, k, v, lengths, causal, dropout, seed)
        call.out = out.data_ptr()
        _run("bothways_attend", call)
        ctx.save_for_backward(q, k, v, lengths)
        ctx.options = (causal, dropout, seed)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, lengths = ctx.saved_tensors
        grad = grad.contiguous()
        grads = q.new_empty((len(q), 3, *q.shape[1:]))
        call = _call(q, k, v, lengths, *ctx.options)
        call.of_out, call.of_stride = grad.data_ptr(), grads.stride(0)
        call.of_q, call.of_k, call.of_v = (part.data_ptr() for part in grads.unbind(1))
        _run("bothways_attend_backward", call)
        return (*grads.unbind(1), None, None, None, None)


def _alike(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors whose tokens are equally far apart, each token's numbers side by side: as they are, if they are so."""
    first = tensors[0]
    size = first.shape[-1]
    fit = all(one.stride() == (first.stride(0), size, 1) for one in tensors)
    return tensors if fit else tuple(one.contiguous() for one in tensors)


def _call(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, causal: bool, dropout: float, seed: int) -> _Call:
    """The arguments that both directions share."""
    return _Call(
        q=q.data_ptr(), k=k.data_ptr(), v=v.data_ptr(), lengths=lengths.data_ptr(), sequences=len(lengths),
        heads=q.shape[1], size=q.shape[2], stride=q.stride(0), causal=causal, half=q.dtype == torch.bfloat16,
        threads=torch.get_num_threads(), seed=seed, dropout=dropout,
    )  # fmt: skip


def _run(name: str, call: _Call) -> None:
    compiled = library()
    assert compiled is not None
    if not getattr(compiled, name)(ctypes.byref(call)):
        raise torch.OutOfMemoryError("attention: memory ran out")
