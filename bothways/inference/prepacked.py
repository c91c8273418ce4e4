"""Weights laid out for a CPU's products of few rows, which is what generation is made of.

oneDNN keeps a large matrix in blocks of the size that its kernels read. Measured on two AVX2 cores with the matrix of a
vocabulary, 30,522 × 256: 1 row 3.2 → 1.5 ms, 4 rows 8.5 → 1.7 ms, 16 rows 8.5 → 2.6 ms. Of small matrices the call
costs more than it saves. Results differ from `nn.Linear`'s by rounding.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

SMALLEST = 1 << 18  # numbers in a matrix that is worth it

Module = TypeVar("Module", bound=nn.Module)


class PrepackedLinear(nn.Module):
    """`nn.Linear` in float32 for inference on a CPU: `[R, in]` → `[R, out]`."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self._bias = linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return product


def prepacked(model: Module) -> Module:
    """A copy of the model for inference that shares its tensors, but for large matrices, which are laid out anew; on
    anything but a CPU in float32 with oneDNN it is the model itself."""
    weight = next(model.parameters())
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return model
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    made = copy.deepcopy(model, shared)  # what is in the memo is not copied
    for module in list(made.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear) and child.weight.numel() >= SMALLEST:
                setattr(module, name, PrepackedLinear(child))
    return made
