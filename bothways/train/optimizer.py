"""AdamW with BERT's parameter groups, and the warm-up + linear decay schedule."""

from __future__ import annotations

import torch
from torch import nn

from bothways.train.options import TrainOptions


def build_optimizer(model: nn.Module, options: TrainOptions) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) without weight decay on biases and layer norms (Devlin et al. 2018, A.2)."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    decayed = [parameter for name, parameter in named if _decays(name)]
    plain = [parameter for name, parameter in named if not _decays(name)]
    groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, options.beta2), eps=options.eps, fused=True)


def _decays(name: str) -> bool:
    return not (name.endswith("bias") or "norm" in name)


def learning_rate(step: int, options: TrainOptions) -> float:
    """The rate of step `step` (from 0): a linear climb over the warm-up's share of the steps, then linearly to zero.

    Source: `transformers.get_linear_schedule_with_warmup`, whose value at the same step it has.
    """
    warmup = int(options.warmup * options.steps)
    if step < warmup:
        return options.lr * step / max(1, warmup)
    return options.lr * max(0.0, (options.steps - step) / max(1, options.steps - warmup))
