"""A loss that compares all sequences of a step, as that of pairs that belong together does, where processes share it.

Each process runs the encoder over its own sequences, what comes of them is gathered, and each computes the whole loss
of it. The gradient flows to a process's own sequences only, and the sum over processes is that of one process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bothways.data.row_plan import OF_STEP, STEP_SEQUENCES
from bothways.model.encoder import Encoder
from bothways.model.heads import Head
from bothways.tasks.base import Objective, at_least_float32
from bothways.train.distributed import World


class WholeStepObjective:
    """An objective whose scores are `[N, …]`, a row for each sequence, on batches of a `RowPlan` that keeps steps
    whole."""

    def __init__(self, objective: Objective, world: World) -> None:
        self._objective, self._world = objective, world

    @property
    def losses(self) -> tuple[str, ...]:
        return self._objective.losses

    @property
    def loss_weights(self) -> Mapping[str, float]:
        return self._objective.loss_weights

    def head(self, encoder: Encoder) -> Head:
        return self._objective.head(encoder)

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        """Those of the whole step, on the main process only, as they are summed over processes."""
        counts = self._objective.counts(_of_step(targets))
        return counts if self._world.main else dict.fromkeys(counts, 0.0)

    def sums(self, scores: Any, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of the whole step; on all processes but the main one their value is 0, and their gradient is not."""
        rows, rank = targets[STEP_SEQUENCES].tolist(), self._world.rank
        own = at_least_float32(scores)[: rows[rank]]  # a process without sequences has run another's
        shares = self._world.gather_rows(own.detach(), rows)
        shares[rank] = own
        sums = self._objective.sums(torch.cat(shares), _of_step(targets))
        return sums if self._world.main else {name: value - value.detach() for name, value in sums.items()}


def _of_step(targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(OF_STEP): target for name, target in targets.items() if name.startswith(OF_STEP)}
