"""Self-attention over a packed batch: one contract, several kernels, one choice between them.

Shapes, here and in `kernels/`: T tokens in all, N sequences, A heads, D = H/A. Sequence n is tokens
`cu_seqlens[n]:cu_seqlens[n+1]`; no token sees another sequence. Every kernel computes softmax(q kᵀ / √D) v (Vaswani et
al. 2017, section 3.2.1), and agrees with `kernels/eager.py`, the reference, in values and gradients.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from bothways.batch import PackedBatch
from bothways.model.kernels.by_length import attend_by_length, attend_flash
from bothways.model.kernels.compiled import attend_compiled
from bothways.model.kernels.dropped import attend_dropped
from bothways.model.kernels.varlen import attend_varlen, has_varlen
from bothways.native.loading import has_training_kernels


class Attend(Protocol):
    """Attention as the encoder's layers call it, once a layer and in the layers' order.

    q, k, v: `[T, A, D]`. batch: where its sequences begin and end (`cu_seqlens`, `max_seqlen`, `lengths`). causal:
    token t sees tokens up to t only. dropout: the probability of dropping an attention weight, 0 to below 1.
    Returns `[T, A, D]`.

    Who needs something else of attention passes an `Attend` to the encoder: explain keeps what it computes, generation
    reads a cache, the export to ONNX masks padding.
    """

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, causal: bool, dropout: float) -> Tensor: ...


def attend(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, causal: bool = False, dropout: float = 0.0) -> Tensor:
    """Attention of every token to its own sequence, by the fastest kernel for the device: see `Attend`.

    The same model gives other bits under `torch.no_grad` than with gradients, the same numbers up to rounding.
    """
    return choose_kernel(q, dropout)(q, k, v, batch, causal, dropout)


def choose_kernel(q: Tensor, dropout: float) -> Attend:
    """The kernel for such queries; the first line that applies:

    device               type                gradients   dropout   kernel
    CUDA, 8.0 or later   bfloat16, float16   any         no        varlen
    CPU, compiled code   float32, bfloat16   recorded    any       compiled
    CPU, compiled code   float32, bfloat16   none        yes       compiled
    CPU                  any                 any         no        by_length (FlashAttention)
    CPU                  any                 any         yes       dropped
    any other            any                 any         any       by_length (SDPA)

    Under `torch.compile` there is no compiled code.
    """
    if not dropout and has_varlen(q):
        return attend_varlen
    if (dropout or torch.is_grad_enabled()) and has_training_kernels(q):
        return _attend_compiled
    if not q.is_cuda:
        return attend_dropped if dropout else attend_flash
    return attend_by_length


def _attend_compiled(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, causal: bool, dropout: float) -> Tensor:
    return attend_compiled(q, k, v, batch.lengths, causal, dropout)
