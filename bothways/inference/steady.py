"""Linear layers of heads whose rows have the same bits in any company, as those of the compiled encoder have."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from bothways.inference.packed_linear import PackedLinear
from bothways.model.heads import Head


class SteadyLinear(nn.Linear):
    """`nn.Linear` in float32 through the compiled product, where a row's result depends on that row alone; those of
    torch for one row, for three and for a hundred add up in other orders.

    The matrix is laid out when it is first used, as a vocabulary's takes the memory of the token table again.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self._packed: PackedLinear | None = None

    def forward(self, x: Tensor) -> Tensor:
        self._packed = self._packed or PackedLinear(self, "float32")
        product: Tensor = self._packed(x)
        return product


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
