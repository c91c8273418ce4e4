"""The schedule: the learning rate of each step, a warm-up and a linear decay."""

from __future__ import annotations

from bothways.train.options import TrainOptions


def learning_rate(step: int, options: TrainOptions) -> float:
    """The rate of step `step` (from 0): a linear climb over the warm-up's share of the steps, then linearly to zero.

    Source: `transformers.get_linear_schedule_with_warmup`, whose value at the same step it has.
    """
    warmup = int(options.warmup * options.steps)
    if step < warmup:
        return options.lr * step / max(1, warmup)
    return options.lr * max(0.0, (options.steps - step) / max(1, options.steps - warmup))
