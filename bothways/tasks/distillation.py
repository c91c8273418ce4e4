"""Distillation in pretraining: an objective of masked LM beside what a teacher shows of the same batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from bothways.errors import UserError, closest, option
from bothways.model.distillation import Lesson, StudentHead, StudentScores, Teacher
from bothways.model.encoder import Encoder
from bothways.model.heads import Head
from bothways.model.pretraining_heads import MaskedLMHead
from bothways.model.relations import relation_loss
from bothways.option_checks import require_at_least
from bothways.tasks.base import at_least_float32
from bothways.tasks.pretraining import MaskedLMObjective


def require_temperature(temperature: float) -> None:
    """Raises UserError for a temperature of soft scores that is not above 0."""
    if not 0 < temperature < math.inf:
        raise UserError(f"{option('teacher_temperature', temperature)}: expected a number above 0")


@dataclass(frozen=True)
class Teaching:
    """How a student learns of its teacher.

    weights: of each loss in `TEACHER_LOSSES`, by its name; those that are not here are not computed. relation_heads:
    into so many heads either model's projections are cut. temperature: of soft targets. hidden_size: the teacher's.
    Raises UserError for heads and a temperature that cannot be.
    """

    weights: Mapping[str, float]
    relation_heads: int
    temperature: float
    hidden_size: int

    def __post_init__(self) -> None:
        require_at_least(1, relation_heads=self.relation_heads)
        require_temperature(self.temperature)

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weights by the names that the losses have in logs."""
        return {f"{name}_loss": weight for name, weight in self.weights.items()}

    def require_width(self, width: int) -> None:
        """Raises UserError where a student of so many hidden units cannot be compared with the teacher."""
        heads, both = self.relation_heads, (self.hidden_size, width)
        if "relation" in self.weights and any(size % heads for size in both):
            common = math.gcd(*both)
            fitting = [number for number in range(1, common + 1) if common % number == 0]
            raise UserError(
                f"{option('relation_heads', heads)}: the teacher has {both[0]} hidden units and the model {both[1]}, "
                f"and both have to be multiples of it; accepted: {', '.join(map(str, fitting))}"
            )
        if "hidden" in self.weights and both[0] != both[1]:
            raise UserError(
                f"{option('teacher_losses', 'hidden')}: compares hidden states of one width, and the teacher has "
                f"{both[0]} hidden units, the model {both[1]}; leave it out, relations are compared at any width"
            )


@dataclass(frozen=True)
class DistilledObjective(MaskedLMObjective):
    """Another objective's losses, and beside them those by which a student learns what its teacher shows.

    objective: masked LM, with or without a decision on pairs. Target of a batch besides those of that objective:
    `sequence_lengths`, int64 `[N]`.
    """

    objective: MaskedLMObjective
    teacher: Teacher
    teaching: Teaching

    @property
    def losses(self) -> tuple[str, ...]:
        return (*self.objective.losses, *self.teaching.loss_weights)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        return {**self.objective.loss_weights, **self.teaching.loss_weights}

    def head(self, encoder: Encoder) -> Head:
        """Raises UserError for an encoder whose width does not fit the teacher's."""
        self.teaching.require_width(encoder.config.hidden_size)
        plain = cast("MaskedLMHead", self.objective.head(encoder))
        return StudentHead(plain, shows_hidden="hidden" in self.teaching.weights)

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        found = {f"{name}_loss": TEACHER_LOSSES[name].count(targets) for name in self.teaching.weights}
        return {**self.objective.counts(targets), **found}

    def sums(self, scores: StudentScores, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        lesson = self.teacher(scores.batch)
        weights = self.teaching.weights
        found = {f"{name}_loss": TEACHER_LOSSES[name].sum(scores, lesson, self.teaching) for name in weights}
        return {**self.objective.sums(scores, targets), **found}


def _tokens(targets: Mapping[str, Tensor]) -> int:
    return int(targets["sequence_lengths"].sum())


def _relation_sum(scores: StudentScores, lesson: Lesson, teaching: Teaching) -> Tensor:
    """Query-query, key-key and value-value relations, each of the same weight (Wang et al. 2020, section 3)."""
    heads, lengths = teaching.relation_heads, scores.batch.lengths
    pairs = zip(scores.projections, lesson.projections, strict=True)
    first, *others = [relation_loss(ours, theirs, heads, lengths) for ours, theirs in pairs]
    return sum(others, first)


def _soft_sum(scores: StudentScores, lesson: Lesson, teaching: Teaching) -> Tensor:
    """Soft targets of the masked tokens (Hinton et al. 2015; DistilBERT, Sanh et al. 2019, section 2)."""
    assert lesson.mlm is not None
    return scores.mlm.divergence_from(lesson.mlm, teaching.temperature)


def _hidden_sum(scores: StudentScores, lesson: Lesson, teaching: Teaching) -> Tensor:
    """Squared differences of hidden states, a mean over the H numbers of each (TinyBERT, Jiao et al. 2020, equation 8,
    of the last layer alone and without a projection)."""
    assert scores.hidden is not None
    assert lesson.hidden is not None
    return (at_least_float32(scores.hidden) - lesson.hidden).square().mean(-1).sum()


@dataclass(frozen=True)
class TeacherLoss:
    """A loss by which a student is compared with its teacher. count: of a batch's targets, what it runs over."""

    count: Callable[[Mapping[str, Tensor]], int]
    sum: Callable[[StudentScores, Lesson, Teaching], Tensor]


TEACHER_LOSSES: dict[str, TeacherLoss] = {
    "relation": TeacherLoss(_tokens, _relation_sum),
    "soft": TeacherLoss(lambda targets: len(targets["mlm_labels"]), _soft_sum),
    "hidden": TeacherLoss(_tokens, _hidden_sum),
}


def parse_teacher_losses(asked: Sequence[str]) -> dict[str, float]:
    """Losses written as NAME or NAME=WEIGHT, with their weights. Raises UserError for names that `TEACHER_LOSSES` does
    not have, for weights that are not above 0, and for a name twice."""
    weights: dict[str, float] = {}
    for loss in asked:
        name, equals, number = loss.partition("=")
        try:
            weight = float(number) if equals else 1.0
        except ValueError:
            weight = -1.0
        if name not in TEACHER_LOSSES or name in weights or not 0 < weight < float("inf"):
            raise UserError(
                f"{option('teacher_losses', loss)}{closest(name, TEACHER_LOSSES)}: expected NAME or NAME=WEIGHT, each "
                f"name once and its weight above 0; names: {', '.join(TEACHER_LOSSES)}"
            )
        weights[name] = weight
    return weights
