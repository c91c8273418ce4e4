"""Cross-entropy of scores over a vocabulary and its gradient, for training on a CPU as one compiled call,
`native/cross_entropy.cpp`: it reads the scores once and leaves the gradient in their place.

Shapes: R rows, V columns.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from bothways.native.loading import library, mirror_structure

_LANES = 16  # the most numbers in a register of any CPU


@mirror_structure
class CrossEntropyCall(ctypes.Structure):
    """The structure of `native/cross_entropy.cpp`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("scores", "bias", "labels", "losses", "right", "dbias")),
        *((name, ctypes.c_int64) for name in ("rows", "columns", "is_bfloat16", "threads")),
    ]


def compiled_cross_entropy(
    scores: Tensor, bias: Tensor, labels: Tensor, grad_bias: Tensor | None
) -> tuple[Tensor, int]:
    """The sum over the rows of the cross-entropy of scores + bias, float32, and how many true columns are the first
    guess.

    scores: `[R, V]`, contiguous, float32 or bfloat16. bias: `[V]`, float32. labels: int64 `[R]`, of 0 to V - 1.
    grad_bias: float32 `[V]`, to which the bias's gradient is added; then the scores become their gradients, in place.
    Without it no gradient is made. Raises IndexError for other labels, as `F.cross_entropy` does, and
    torch.OutOfMemoryError when memory runs out.
    """
    compiled = library()
    assert compiled is not None
    rows, columns = scores.shape
    if rows and not 0 <= int(labels.min()) <= int(labels.max()) < columns:
        raise IndexError(f"labels of {int(labels.min())} to {int(labels.max())}, of {columns} columns")
    bias, labels = bias.contiguous(), labels.contiguous()
    losses, right = torch.empty(rows), torch.empty(rows, dtype=torch.bool)
    sums = None if grad_bias is None else torch.empty(-(-columns // _LANES) * _LANES)
    call = CrossEntropyCall(
        scores=scores.data_ptr(),
        bias=bias.data_ptr(),
        labels=labels.data_ptr(),
        losses=losses.data_ptr(),
        right=right.data_ptr(),
        dbias=None if sums is None else sums.data_ptr(),
        rows=rows,
        columns=columns,
        is_bfloat16=scores.dtype == torch.bfloat16,
        threads=torch.get_num_threads(),
    )
    if not compiled.bothways_cross_entropy(ctypes.byref(call)):
        raise torch.OutOfMemoryError("cross-entropy: memory ran out")
    if grad_bias is not None and sums is not None:
        grad_bias += sums[:columns]
    return losses.sum(), int(right.sum())
