"""Attention within a window, or with a bias by distance, in torch's operators on any device.

Of a window w the queries are read in chunks, each with the keys that it may see: the cost is that of T × 3w scores
instead of T × L. Sequences of one length are one batch, as in `by_length`.

Shapes: T tokens; in a group B sequences of L tokens; A heads, D = H/A.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from bothways.batch import PackedBatch
from bothways.model.attention_mask import AttentionMask, places
from bothways.model.kernels.by_length import grouped, ungrouped

MIN_CHUNK = 128  # queries in a chunk, at least: below, a call's own cost is felt


def attend_masked(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask, dropout: float) -> Tensor:
    """`scaled_dot_product_attention` of each group, chunk by chunk; differentiated by torch's autograd, also in the
    bias."""
    groups = grouped(batch.lengths, q, k, v)
    return ungrouped([_attend_group(query, key, value, mask, dropout) for query, key, value in groups])


def _attend_group(q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask, dropout: float) -> Tensor:
    parts = []
    for queries, keys in _chunks(q.shape[2], mask):
        added = mask.added(places(queries.start, queries.stop, q), places(keys.start, keys.stop, q))
        if added is not None and added.is_floating_point():
            added = added.to(q.dtype)
        part = F.scaled_dot_product_attention(
            q[:, :, queries], k[:, :, keys], v[:, :, keys], attn_mask=added, dropout_p=dropout
        )
        parts.append(part)
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _chunks(length: int, mask: AttentionMask) -> Iterator[tuple[slice, slice]]:
    """Consecutive queries, and the keys that one of them sees."""
    if mask.window is None:
        yield slice(0, length), slice(0, length)
        return
    size = max(mask.window, MIN_CHUNK)
    for start in range(0, length, size):
        end = min(start + size, length)
        last = end if mask.causal else min(end + mask.window, length)
        yield slice(start, end), slice(max(0, start - mask.window), last)
