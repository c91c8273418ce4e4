"""AdamW with BERT's parameter groups, Muon beside it, and the warm-up + linear decay schedule."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bothways.train.options import TrainOptions


class CombinedOptimizer:
    """Several optimizers of disjoint parameters as a single one, with one `state` and one list of `param_groups`."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.optimizers = optimizers
        self.state = optimizers[0].state
        for optimizer in optimizers:
            optimizer.state = self.state
        self.param_groups: list[dict[str, Any]] = [group for each in optimizers for group in each.param_groups]

    def step(self) -> None:
        """Update every parameter from its gradient."""
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, as `torch.optim.Optimizer.zero_grad`."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)


def build_optimizer(model: nn.Module, options: TrainOptions) -> torch.optim.Optimizer | CombinedOptimizer:
    """AdamW (Loshchilov and Hutter 2019) without weight decay on biases and layer norms (Devlin et al. 2018, A.2).

    With `optimizer` "muon", the matrices of the layers go to Muon (Jordan et al. 2024) instead, with its update scaled
    to AdamW's size (Liu et al. 2025, "Muon is scalable for LLM training"), so that the same learning rate suits both.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    matrices = [p for name, p in named if options.optimizer == "muon" and ".layers." in name and p.ndim == 2]
    in_muon = set(matrices)
    decayed = [parameter for name, parameter in named if _decays(name) and parameter not in in_muon]
    plain = [parameter for name, parameter in named if not _decays(name)]
    groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, options.beta2), eps=options.eps, fused=True)
    if not matrices:
        return adamw
    muon = torch.optim.Muon(matrices, lr=options.lr, weight_decay=options.weight_decay, adjust_lr_fn="match_rms_adamw")
    return CombinedOptimizer(muon, adamw)


def _decays(name: str) -> bool:
    return not (name.endswith("bias") or "norm" in name)
