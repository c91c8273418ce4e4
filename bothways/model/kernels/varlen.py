"""torch's own FlashAttention over `cu_seqlens`, for CUDA in half precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bothways.batch import PackedBatch
from bothways.model.attention_mask import AttentionMask

if torch.cuda.is_available():  # importing it takes a second, which a CPU need not wait
    from torch.nn.attention.varlen import varlen_attn


def has_varlen(q: Tensor) -> bool:
    """Whether FlashAttention reads such tensors: bfloat16 or float16 on CUDA of capability 8.0 or later."""
    half = q.dtype in (torch.bfloat16, torch.float16)
    return q.is_cuda and half and torch.cuda.get_device_capability(q.device) >= (8, 0)


def attend_varlen(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask, dropout: float) -> Tensor:
    """Attention without dropout; sequences may have any lengths in any order. Differentiable once."""
    assert not dropout, "FlashAttention over packed sequences has no dropout"
    assert mask.bias is None
    reach = -1 if mask.window is None else mask.window
    window = (reach, 0 if mask.causal else reach)
    places, longest = batch.cu_seqlens, batch.max_seqlen
    attended: Any = varlen_attn(q, k, v, places, places, longest, longest, window_size=window)
    return attended
