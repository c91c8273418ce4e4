"""Self-attention over a packed batch: one contract, several kernels, one choice between them.

Shapes, here and in `kernels/`: T tokens in all, N sequences, A heads, D = H/A. Sequence n is tokens
`cu_seqlens[n]:cu_seqlens[n+1]`; no token sees another sequence. Every kernel computes softmax(q kᵀ / √D) v (Vaswani et
al. 2017, section 3.2.1) under a mask (`attention_mask.py`), and agrees with `kernels/eager.py`, the reference, in
values and gradients.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from bothways.batch import PackedBatch
from bothways.model.attention_mask import BOTH_WAYS, AttentionMask
from bothways.model.kernels.by_length import attend_by_length, attend_flash
from bothways.model.kernels.compiled import attend_compiled
from bothways.model.kernels.dropped import attend_dropped
from bothways.model.kernels.masked import attend_masked
from bothways.model.kernels.varlen import attend_varlen, has_varlen
from bothways.native.loading import has_training_kernels


class Attend(Protocol):
    """Attention as the encoder's layers call it, once a layer and in the layers' order.

    q, k, v: `[T, A, D]`. batch: where its sequences begin and end (`cu_seqlens`, `max_seqlen`, `lengths`). mask: what a
    token sees of its sequence. dropout: the probability of dropping an attention weight, 0 to below 1.
    Returns `[T, A, D]`.

    Who needs something else of attention passes an `Attend` to the encoder: explain keeps what it computes, generation
    reads a cache, the export to ONNX masks padding.
    """

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask, dropout: float
    ) -> Tensor: ...


def attend(
    q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask = BOTH_WAYS, dropout: float = 0.0
) -> Tensor:
    """Attention of every token to its own sequence, by the fastest kernel for the device: see `Attend`.

    The same model gives other bits under `torch.no_grad` than with gradients, the same numbers up to rounding.
    """
    return choose_kernel(q, mask, dropout)(q, k, v, batch, mask, dropout)


def choose_kernel(q: Tensor, mask: AttentionMask, dropout: float) -> Attend:
    """The kernel for such queries; the first line that applies:

    device               type                mask            gradients   dropout   kernel
    CUDA, 8.0 or later   bfloat16, float16   without bias    any         any       varlen
    CPU, compiled code   float32, bfloat16   without bias    recorded    any       compiled
    CPU, compiled code   float32, bfloat16   without bias    none        yes       compiled
    any                  any                 window, bias    any         any       masked
    CPU                  any                 causal, none    any         no        by_length (FlashAttention)
    CPU                  any                 causal, none    any         yes       dropped
    any other            any                 causal, none    any         any       by_length (SDPA)

    Under `torch.compile` there is no compiled code. Heads of a size that FlashAttention does not read (`has_varlen`)
    go on to the lines below.
    """
    if mask.bias is None and has_varlen(q):
        return attend_varlen
    if mask.bias is None and (dropout or torch.is_grad_enabled()) and has_training_kernels(q):
        return _attend_compiled
    if not mask.is_plain:
        return attend_masked
    if not q.is_cuda:
        return attend_dropped if dropout else attend_flash
    return attend_by_length


def _attend_compiled(
    q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask, dropout: float
) -> Tensor:
    return attend_compiled(q, k, v, batch.lengths, mask, dropout)
