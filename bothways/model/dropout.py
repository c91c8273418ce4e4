"""Dropout (Srivastava et al. 2014) whose random bits are cheap on a CPU.

torch draws one number of a slow generator for each element there, and keeps the mask. The compiled call (`native/`)
draws once for a tensor and makes of that every element's decision as it goes by, forward and again backward. Without it
16 of the 64 bits of one of torch's draws decide for an element, which is right to 1/131072. Draws come from torch's own
CPU generator, so that `torch.manual_seed` repeats them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.native import has_training_kernels, library

LANES, VALUES = 4, 1 << 16  # sixteen bits each


def draw_seed() -> int:
    """63 bits of torch's CPU generator."""
    return int(torch.empty((), dtype=torch.int64).random_())


def keep_mask(like: Tensor, probability: float) -> Tensor:
    """Booleans of a CPU tensor's shape, False with this probability."""
    draws = torch.empty(-(-like.numel() // LANES), dtype=torch.int64).random_(-(1 << 63), None)
    lowest = round(probability * VALUES) - VALUES // 2
    return (draws.view(torch.int16)[: like.numel()] >= lowest).view(like.shape)


class _Dropped(torch.autograd.Function):
    """Linear in x, so its derivative is itself."""

    @staticmethod
    def forward(x: Tensor, probability: float, seed: int) -> Tensor:
        x = x.contiguous()
        out = torch.empty_like(x)
        compiled = library()
        assert compiled is not None
        drop = compiled.bothways_drop_bfloat16 if x.dtype == torch.bfloat16 else compiled.bothways_drop_float32
        drop(x.data_ptr(), out.data_ptr(), x.numel(), seed, probability, torch.get_num_threads())
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, *ctx.options = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Dropped.apply(grad, *ctx.options), None, None


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
        if has_training_kernels(x):
            dropped: Tensor = _Dropped.apply(x, self.probability, draw_seed())
            return dropped
        return x * torch.where(keep_mask(x, self.probability), 1 / (1 - self.probability), 0.0).to(x.dtype)
