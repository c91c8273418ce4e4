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
    plain = _plain(linear, x)
    if plain is not None and activation is F.gelu and torch.is_grad_enabled():
        return bias_gelu(F.linear(x, plain.weight), plain.bias)
    return activation(linear(x))


def add_and_norm(linear: nn.Module, x: Tensor, residual: Tensor, dropout: nn.Module, norm: nn.Module) -> Tensor:
    """norm(residual + dropout(linear(x))), compiled where a gradient is recorded, `linear` and `norm` are plain ones
    with a bias, and the sum is float32. It drops the same numbers either way."""
    plain = _plain(linear, x)
    if (
        plain is not None
        and type(norm) is nn.LayerNorm
        and norm.bias is not None
        and not _has_hooks(norm)
        and not _has_hooks(dropout)
        and isinstance(dropout, Dropout)
        and residual.dtype == torch.float32
        and torch.is_grad_enabled()
    ):
        probability = dropout.probability if dropout.training else 0.0
        return residual_norm(F.linear(x, plain.weight), plain.bias, residual, norm, probability)
    added: Tensor = norm(residual + dropout(linear(x)))
    return added


def _plain(linear: nn.Module, x: Tensor) -> nn.Linear | None:
    """The layer, if the compiled calls can follow its product, as its type and width and the product's type go."""
    if (
        type(linear) is nn.Linear
        and linear.bias is not None
        and linear.bias.dtype == torch.float32
        and linear.out_features % ROW_MULTIPLE == 0
        and not _has_hooks(linear)
        and has_training_kernels(x)
        and not (torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.float16)
    ):
        return linear
    return None


def _has_hooks(module: nn.Module) -> bool:
    """Whether a module is to be called, and not only its weights to be read."""
    return any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks))
