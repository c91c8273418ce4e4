"""FlashAttention-2 (Dao 2023) over `cu_seqlens`, for CUDA in half precision: torch's kernel, one call for any lengths.

`torch.nn.attention.varlen` calls the same operator; it has no dropout, and a Python wrapper around each call.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bothways.batch import PackedBatch
from bothways.model.attention_mask import AttentionMask

OLDEST_CAPABILITY = (8, 0)  # Ampere
HEAD_SIZES = range(8, 257, 8)


def has_varlen(q: Tensor) -> bool:
    """Whether FlashAttention reads such tensors: bfloat16 or float16 on CUDA of capability 8.0 or later, heads of a
    multiple of 8 up to 256."""
    half = q.dtype in (torch.bfloat16, torch.float16)
    return q.is_cuda and half and q.shape[-1] in HEAD_SIZES and _runs_flash(q.device.index)


def _runs_flash(device_index: int) -> bool:
    return torch.cuda.get_device_capability(device_index) >= OLDEST_CAPABILITY


# To torch.compile a constant, as torch.compiler.assume_constant_result marks it, whose import takes a second; else each
# layer would cut the graph here.
_runs_flash._dynamo_marked_constant = True  # type: ignore[attr-defined]


def attend_varlen(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask, dropout: float) -> Tensor:
    """Attention of sequences of any lengths in any order, differentiable once. Which weights are dropped follows from
    torch's CUDA generator."""
    assert mask.bias is None
    reach = -1 if mask.window is None else mask.window  # -1: any distance
    places, longest = batch.cu_seqlens, batch.max_seqlen
    rate = dropout if dropout else 0.0  # a constant to torch.compile, to which a module's own number is none
    attended: Tensor = torch.ops.aten._flash_attention_forward(
        q, k, v, places, places, longest, longest, rate, mask.causal and mask.window is None, False,
        window_size_left=reach, window_size_right=0 if mask.causal else reach,
    )[0]  # fmt: skip
    return attended
