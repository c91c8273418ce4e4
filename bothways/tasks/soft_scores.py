"""Soft scores: a task's own loss, and beside it how far the student's scores are from those of a model that was
fine-tuned for the same task (Hinton et al. 2015, section 2).

The teacher is asked once about every training row; its scores are targets like the gold labels, named `soft`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from bothways.data.encoded import Encoded
from bothways.model.encoder import Encoder
from bothways.model.heads import Head
from bothways.tasks.base import Task, at_least_float32

SOFT_LOSS = "soft_loss"


def divergence(scores: Tensor, soft: Tensor, temperature: float) -> Tensor:
    """The Kullback-Leibler divergence of softmax(scores / t) from softmax(soft / t), times t², summed over all but the
    last axis: logits `[…, C]` both. A scalar."""
    log_q = (at_least_float32(scores) / temperature).log_softmax(-1)
    log_p = (soft.to(log_q.dtype) / temperature).log_softmax(-1)
    return F.kl_div(log_q, log_p, reduction="sum", log_target=True) * temperature**2


def binary_divergence(scores: Tensor, soft: Tensor, temperature: float) -> Tensor:
    """As `divergence`, of a yes or no for each number: the sigmoids are compared, and summed over all."""
    ours = at_least_float32(scores) / temperature
    theirs = soft.to(ours.dtype) / temperature
    gold = theirs.sigmoid()
    crossed, own = (F.binary_cross_entropy_with_logits(logits, gold, reduction="sum") for logits in (ours, theirs))
    return (crossed - own) * temperature**2


@dataclass(frozen=True)
class SoftScoresObjective:
    """A task's losses and its `soft_loss`, the latter times `weight`. Target of a batch besides the task's: `soft`."""

    task: Task
    weight: float
    temperature: float

    @property
    def losses(self) -> tuple[str, ...]:
        return (*self.task.losses, SOFT_LOSS)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        return {**self.task.loss_weights, SOFT_LOSS: self.weight}

    def head(self, encoder: Encoder) -> Head:
        return self.task.head(encoder)

    def collate(self, encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
        """As `Task.collate`, with soft: the sequences' soft scores, one behind the other."""
        soft = np.concatenate([sequence.targets["soft"] for sequence in encoded])
        return {**self.task.collate(encoded), "soft": soft}

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        return {**self.task.counts(targets), SOFT_LOSS: self.task.soft_count(targets)}

    def sums(self, scores: Any, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {**self.task.sums(scores, targets), SOFT_LOSS: self.task.soft_loss(scores, targets, self.temperature)}


def with_soft_scores(encoded: Sequence[Encoded], soft: Sequence[np.ndarray]) -> list[Encoded]:
    """The sequences with their soft scores as a target, in the order given."""
    return [
        replace(sequence, targets={**sequence.targets, "soft": of_sequence})
        for sequence, of_sequence in zip(encoded, soft, strict=True)
    ]
