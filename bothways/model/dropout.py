"""Dropout (Srivastava et al. 2014) whose random bits are cheap on a CPU.

torch draws one number of a slow generator for each element there; 16 of the 64 bits of one draw are enough, which makes
a mask about five times as fast and drops with a probability that is right to 1/131072. Draws come from torch's own CPU
generator, so that `torch.manual_seed` repeats them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LANES, VALUES = 4, 1 << 16  # sixteen bits each


def kept(like: Tensor, probability: float) -> Tensor:
    """Booleans of a CPU tensor's shape, False with this probability."""
    draws = torch.empty(-(-like.numel() // LANES), dtype=torch.int64).random_(-(1 << 63), None)
    lowest = round(probability * VALUES) - VALUES // 2
    return (draws.view(torch.int16)[: like.numel()] >= lowest).view(like.shape)


class Dropout(nn.Module):
    """As `nn.Dropout`: in training each element is zero with this probability, the others are scaled to the same
    mean."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.probability:
            return x
        if x.is_cuda:
            return F.dropout(x, self.probability)
        return x * torch.where(kept(x, self.probability), 1 / (1 - self.probability), 0.0).to(x.dtype)
