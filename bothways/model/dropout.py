"""Dropout (Srivastava et al. 2014) whose random bits are cheap on a CPU.

There torch draws a number of a slow generator for each element, and keeps the mask. The compiled call (`native/`) draws
once for a tensor and hashes that draw with each element's place, in the forward and again in the backward pass. Without
compiled code each of torch's 64-bit draws decides for four elements, so that probabilities are right to 1/131072. Draws
come from torch's own CPU generator, so that `torch.manual_seed` repeats them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.native.loading import has_training_kernels, library

DECISIONS_A_DRAW, DECISION_VALUES = 4, 1 << 16  # a draw of 64 bits is four decisions of 16 bits


def draw_63_bits() -> int:
    """A seed of 63 bits, drawn from torch's CPU generator."""
    return int(torch.empty((), dtype=torch.int64).random_())


def keep_mask(like: Tensor, probability: float) -> Tensor:
    """A mask of a CPU tensor's shape, bool; each element is False with this probability."""
    count = math.ceil(like.numel() / DECISIONS_A_DRAW)
    draws = torch.empty(count, dtype=torch.int64).random_(-(1 << 63), None)
    lowest = round(probability * DECISION_VALUES) - DECISION_VALUES // 2  # kept, as a signed number
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
    """Does what `nn.Dropout` does: in training each element is zero with this probability, and the others are scaled
    so that the mean stays."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.probability:
            return x
        if x.is_cuda:
            return F.dropout(x, self.probability)
        if has_training_kernels(x):
            dropped: Tensor = _Dropped.apply(x, self.probability, draw_63_bits())
            return dropped
        return x * torch.where(keep_mask(x, self.probability), 1 / (1 - self.probability), 0.0).to(x.dtype)
