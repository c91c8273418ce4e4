"""The schedule: the learning rate of each step, a warm-up, a stable phase where one is asked for, a linear decay."""

from __future__ import annotations

import math

from bothways.train.options import TrainOptions


def learning_rate(step: int, options: TrainOptions) -> float:
    """The rate of step `step` (from 0): a linear climb over the warm-up's share of the steps, the peak until the
    decay's share of the steps is left, then linearly to zero; without a stable phase where the two shares fill the run.

    Source: `transformers.get_wsd_schedule` with linear ends, and with a decay of 1 `get_linear_schedule_with_warmup`,
    whose values at the same step it has.
    """
    warmup = int(options.warmup * options.steps)
    if step < warmup:
        return options.lr * step / max(1, warmup)
    decay = min(options.steps - warmup, math.ceil(options.decay * options.steps))
    return options.lr * min(1.0, max(0.0, (options.steps - step) / max(1, decay)))
