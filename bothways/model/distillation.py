"""Distillation: what a student shows of itself, and what a teacher shows it, of the same batch.

Shapes: T tokens, A heads, D = H/A, H hidden, M masked tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from bothways.batch import PackedBatch
from bothways.model.attention_mask import AttentionMask
from bothways.model.heads import Model
from bothways.model.lm_head import LazyLogits
from bothways.model.pretraining_heads import MaskedLMHead, PretrainingScores
from bothways.model.relations import Projections


@dataclass(frozen=True)
class Lesson:
    """What a teacher shows of a batch, without gradients.

    projections: of its chosen layer, each `[T, A, D]`. hidden: that layer's output `[T, H]`. mlm: its scores `[M, V]`
    of the masked tokens. None: not asked for.
    """

    projections: Projections
    hidden: Tensor | None = None
    mlm: LazyLogits | None = None


Teacher = Callable[[PackedBatch], Lesson]


@dataclass
class StudentScores(PretrainingScores):
    """As `PretrainingScores`, with what a teacher's lesson is compared with. projections: of the last layer. hidden:
    its output `[T, H]`; None where it was not asked for. batch: what was read."""

    projections: Projections
    hidden: Tensor | None
    batch: PackedBatch


class StudentHead(MaskedLMHead):
    """A head of masked LM that also shows its encoder's last layer: the same modules under the same names, so that the
    model is saved and read as one with the head that it is made of."""

    def __init__(self, head: MaskedLMHead, shows_hidden: bool = False) -> None:
        """shows_hidden: the last layer is finished for all tokens, and not for those that are scored alone."""
        super().__init__(head.lm)
        for name, module in head.named_children():
            self.add_module(name, module)
        self._plain = (head,)  # in a tuple, as its modules are here already
        self.kind, self.abilities = head.kind, head.abilities  # type: ignore[misc]
        self.architecture, self._shows_hidden = head.architecture, shows_hidden
        self._projections: Projections | None = None

    def saved_models(self, model: Model) -> dict[str, Model]:
        return {"model": model.with_head(self._plain[0])}

    def reads(self, batch: PackedBatch) -> Tensor | None:  # type: ignore[override]
        return None if self._shows_hidden else self._plain[0].reads(batch)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask, dropout: float
    ) -> Tensor:
        self._projections = Projections(q, k, v)  # each layer's in turn: the last one's stay
        return super().attend(q, k, v, batch, mask, dropout)

    def forward(self, hidden: Tensor, batch: PackedBatch) -> StudentScores:
        plain = self._plain[0]
        read = hidden.index_select(0, plain.reads(batch)) if self._shows_hidden else hidden
        scores = plain(read, batch)
        projections, self._projections = self._projections, None
        assert projections is not None
        return StudentScores(scores.mlm, scores.nsp, projections, hidden if self._shows_hidden else None, batch)
