"""torch's own FlashAttention over `cu_seqlens`, for CUDA in half precision."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from bothways.batch import PackedBatch

if torch.cuda.is_available():  # importing it takes a second, which a CPU need not wait
    from torch.nn.attention.varlen import varlen_attn

    # Causality is `is_causal` up to torch 2.10, then a window.
    _BY_WINDOW = "window_size" in inspect.signature(varlen_attn).parameters


def has_varlen(q: Tensor) -> bool:
    """Whether FlashAttention reads such tensors: bfloat16 or float16 on CUDA of capability 8.0 or later."""
    half = q.dtype in (torch.bfloat16, torch.float16)
    return q.is_cuda and half and torch.cuda.get_device_capability(q.device) >= (8, 0)


def attend_varlen(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, causal: bool, dropout: float) -> Tensor:
    """Attention without dropout; sequences may have any lengths in any order. Differentiable once."""
    assert not dropout, "FlashAttention over packed sequences has no dropout"
    option: dict[str, Any] = {"window_size": (-1, 0) if causal else (-1, -1)} if _BY_WINDOW else {"is_causal": causal}
    places, longest = batch.cu_seqlens, batch.max_seqlen
    attended: Any = varlen_attn(q, k, v, places, places, longest, longest, **option)
    return attended
