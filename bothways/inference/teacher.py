"""A trained model as a teacher: what its chosen layer attends by, and what it puts in the place of masks.

It is run without gradients and without dropout, and is no part of the student: each process has the whole of it, and
nothing of it is saved with the student.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import torch
from torch import Tensor

from bothways.batch import PackedBatch
from bothways.inference.prepared import prepare_model
from bothways.model.attention import attend
from bothways.model.attention_mask import AttentionMask
from bothways.model.distillation import Lesson
from bothways.model.encoder import Encoder, Layer
from bothways.model.heads import Head, Model
from bothways.model.relations import Projections


class _HiddenStates(Head):
    """The hidden states as they are."""

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return hidden


class ModelTeacher:
    """A `Teacher`: packed batch → `Lesson`.

    The layers below the chosen one are one call of the compiled layers where they support the model in float32; from
    there on they are torch's, as their projections are wanted. Where nothing is read behind the projections, the layer
    ends there.
    """

    def __init__(self, model: Model, layer: int, losses: Collection[str], dtype: torch.dtype) -> None:
        """model: on the student's device. layer: whose projections are shown, from 1. losses: by their names in
        `tasks.distillation.TEACHER_LOSSES`; for `soft` the model has a head of masked LM. dtype: of its products."""
        half = dtype == torch.bfloat16
        model = prepare_model(model, "bfloat16") if half else model.eval()
        lower = Model(_some_layers(model.encoder, 0, layer - 1), _HiddenStates())
        self._lower = lower if half or layer == 1 else prepare_model(lower)
        end = len(model.encoder.order) if "soft" in losses else layer
        self._upper = _some_layers(model.encoder, layer - 1, end)
        self._head = model.head if "soft" in losses else None
        self._shows_hidden = "hidden" in losses

    @torch.no_grad()
    def __call__(self, batch: PackedBatch) -> Lesson:
        attention = _FirstProjections(computes=self._head is not None or self._shows_hidden)
        hidden: list[Tensor] = []
        states = self._lower(batch)
        read = None if self._shows_hidden else self._tokens_to_finish(batch)
        last = self._upper.run_layers(states, batch, read, attention, hidden.append)
        scores = None
        if self._head is not None:
            wanted = self._head.reads(batch)
            of_head = last.index_select(0, wanted) if read is None and wanted is not None else last
            scores = self._head.vocabulary_scores(self._head(of_head, batch))
        assert attention.first is not None
        return Lesson(attention.first, hidden[0].float() if self._shows_hidden else None, scores)

    def _tokens_to_finish(self, batch: PackedBatch) -> Tensor | None:
        if self._head is None:
            return batch.cu_seqlens[:0].long()
        return self._head.reads(batch)


class _FirstProjections:
    """An `Attend` that keeps what it is given first. computes: whether anything reads the attention's result."""

    def __init__(self, computes: bool) -> None:
        self._computes = computes
        self.first: Projections | None = None

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask, dropout: float
    ) -> Tensor:
        self.first = self.first or Projections(q, k, v)
        return attend(q, k, v, batch, mask, dropout) if self._computes else v


def _some_layers(encoder: Encoder, first: int, end: int) -> Encoder:
    """The encoder's layers `first` to `end - 1`, as they run, counted from 0."""
    order = encoder.order[first:end]
    numbers = sorted(set(order))
    return Encoder(
        encoder.config,
        encoder.embeddings,
        [cast("Layer", encoder.layers[number]) for number in numbers],
        order=[numbers.index(number) for number in order],
        norm=encoder.norm if end == len(encoder.order) else None,
        relative_bias=encoder.relative_bias,
    ).eval()
