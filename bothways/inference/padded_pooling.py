"""Pooling of padded hidden states, as a model for other programs has it: the numbers of `model/pooling.py`.

Shapes: B texts, L tokens of the longest, H hidden, P poolings beside each other.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bothways.model.pooling import Pooling, TokenPooling


def pool_padded(pool: TokenPooling, hidden: Tensor, mask: Tensor) -> Tensor:
    """hidden: `[B, L, H]`; mask: `[B, L]`, 0 at padding, which is behind the tokens → `[B, P x H]`."""
    return torch.cat([_POOLINGS[mode](hidden, mask) for mode in pool.modes], dim=-1)


def padded_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean over each text's tokens: `[B, H]`."""
    share = _share(hidden, mask)
    return (hidden * share).sum(1) / share.sum(1)


def padded_last(hidden: Tensor, mask: Tensor) -> Tensor:
    """Each text's last token: `[B, H]`."""
    last = mask.sum(1).long() - 1
    return hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[2]))[:, 0]


def _share(hidden: Tensor, mask: Tensor) -> Tensor:
    """1 for a token, 0 for padding: `[B, L, 1]`."""
    return mask.to(hidden.dtype)[..., None]


def _mean_sqrt_len(hidden: Tensor, mask: Tensor) -> Tensor:
    share = _share(hidden, mask)
    return (hidden * share).sum(1) / share.sum(1).sqrt()


def _weighted_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    weight = _share(hidden, mask) * torch.arange(1, hidden.shape[1] + 1, device=hidden.device)[None, :, None]
    return (hidden * weight).sum(1) / weight.sum(1)


def _max(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden.masked_fill(mask[..., None] == 0, torch.finfo(hidden.dtype).min).amax(1)


_POOLINGS: dict[Pooling, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": padded_mean,
    "cls": lambda hidden, mask: hidden[:, 0],
    "max": _max,
    "mean_sqrt_len_tokens": _mean_sqrt_len,
    "weightedmean": _weighted_mean,
    "lasttoken": padded_last,
}
