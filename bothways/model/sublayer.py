"""What closes and joins the products of a layer: one contract, two ways, one choice between them.

    activate(linear, activation, x)                  activation(linear(x))
    add_and_norm(linear, x, residual, dropout, norm)     norm(residual + dropout(linear(x)))

Where they can be compiled calls (`kernels/fused.py`), linear's bias is part of them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.model.dropout import Dropout
from bothways.model.kernels.fused import ROW_MULTIPLE, bias_gelu, residual_norm
from bothways.native.loading import has_training_kernels


def activate(linear: nn.Module, activation: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """activation(linear(x)), compiled where a gradient is recorded, `linear` is a plain one with a bias, and the
    activation the exact GELU."""
    if activation is F.gelu and torch.is_grad_enabled() and _is_plain(linear, x):
        return bias_gelu(F.linear(x, linear.weight), linear.bias)
    return activation(linear(x))


def add_and_norm(linear: nn.Module, x: Tensor, residual: Tensor, dropout: nn.Module, norm: nn.Module) -> Tensor:
    """norm(residual + dropout(linear(x))), compiled where a gradient is recorded, `linear` and `norm` are plain ones
    with a bias, and the sum is float32. It drops the same numbers either way."""
    plain = type(norm) is nn.LayerNorm and norm.bias is not None and isinstance(dropout, Dropout)
    if plain and torch.is_grad_enabled() and residual.dtype == torch.float32 and _is_plain(linear, x):
        return residual_norm(
            F.linear(x, linear.weight), linear.bias, residual, norm, dropout.probability if dropout.training else 0.0
        )
    added: Tensor = norm(residual + dropout(linear(x)))
    return added


def _is_plain(linear: nn.Module, x: Tensor) -> bool:
    """Whether the compiled calls can follow this product, as its type and width go."""
    return (
        type(linear) is nn.Linear
        and linear.bias is not None
        and linear.bias.dtype == torch.float32
        and linear.out_features % ROW_MULTIPLE == 0
        and not linear._forward_hooks
        and has_training_kernels(x)
    )
