"""Linear layers of heads whose rows have the same bits in any company, as those of the compiled encoder have."""

from __future__ import annotations

import copy

import torch.nn.functional as F
from torch import Tensor, nn

from bothways.model.heads import Head

# Rows from which a product of torch's gives a row the same bits whatever their number; measured 4 on AVX2.
MIN_STEADY_ROWS = 8


class SteadyLinear(nn.Linear):
    """`nn.Linear` in float32: fewer than `MIN_STEADY_ROWS` rows go through the kernel of as many, as those for one to
    three rows add up in another order."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        rows = len(x)
        if rows >= MIN_STEADY_ROWS or x.dim() != 2:
            return super().forward(x)
        return super().forward(F.pad(x, (0, 0, 0, MIN_STEADY_ROWS - rows)))[:rows]


def steady_head(head: Head) -> Head:
    """A head whose linear layers are steady; tensors are shared. Itself where none would change."""
    if not any(type(module) is nn.Linear for module in head.modules()):
        return head
    made = copy.deepcopy(head, {id(tensor): tensor for tensor in (*head.parameters(), *head.buffers())})
    for module in list(made.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, SteadyLinear(child))
    return made
