"""Heads of tasks: labels of texts and of words, choices, answers, vectors; and what a bare encoder gives.

Shapes: T tokens, N sequences, R tokens that a head reads, H hidden, C labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.batch import PackedBatch
from bothways.model.heads import Ability, Decision, Head, HeadKind, Model
from bothways.model.pooling import Dense, Pooling, TokenPooling, first_tokens, last_tokens, sequence_means

Reading = Literal["first", "last", "mean"]  # of a sequence's tokens


class PooledHead(Head):
    """Reads one state of each sequence: its first token's, its last one's, or the mean over its tokens."""

    def __init__(self, pooler: nn.Module, reading: Reading = "first") -> None:
        super().__init__()
        self.pooler, self.reading = pooler, reading

    def reads(self, batch: PackedBatch) -> Tensor | None:
        return {"first": first_tokens, "last": last_tokens, "mean": lambda batch: None}[self.reading](batch)

    @property
    def reads_first_tokens_only(self) -> bool:
        return self.reading == "first"

    def pooled(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """`[N, H]`."""
        pooled: Tensor = self.pooler(sequence_means(hidden, batch) if self.reading == "mean" else hidden)
        return pooled


class EncoderHead(PooledHead):
    """A bare encoder's head: the pooled first token `[N, H]`, or the token itself where a family pools nothing."""

    kind = "encoder"

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return self.pooled(hidden, batch)


class SequenceHead(PooledHead):
    """Pooled state, dropout, one linear layer: `[N, C]` logits."""

    kind: ClassVar[HeadKind] = "sequence"
    abilities = frozenset[Ability]({"sequence"})
    trained_for = "classify"
    needs_labels = True

    def __init__(
        self, pooler: nn.Module, dropout: nn.Module, classifier: nn.Linear, reading: Reading = "first"
    ) -> None:
        super().__init__(pooler, reading)
        self.dropout, self.classifier = dropout, classifier

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return self.classifier(self.dropout(self.pooled(hidden, batch)))

    def decision(self, scores: Tensor, name: Callable[[int], str]) -> Decision:
        """The label with the highest score; the score itself where there is but one."""
        best = int(scores[0].argmax()) if scores.dim() > 1 else 0
        return Decision(name(best) or "the score", lambda scores: scores.reshape(-1)[best])


class ChoiceHead(SequenceHead):
    """One number a sequence, `[N]`: how well the choice it ends with goes with what it begins with."""

    kind: ClassVar[HeadKind] = "choice"
    abilities = frozenset[Ability]({"choice"})
    trained_for = "choose"
    needs_labels = False

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return super().forward(hidden, batch).squeeze(-1)


class TokenHead(Head):
    """Dropout and one linear layer on the tokens in `targets["word_index"]`: `[R, C]` logits."""

    kind = "token"
    abilities = frozenset[Ability]({"token"})
    trained_for = "tag"
    needs_labels = True

    def __init__(self, dropout: nn.Module, classifier: nn.Linear, transform: nn.Module | None = None) -> None:
        """transform: of the hidden states, in front of the dropout."""
        super().__init__()
        self.transform, self.dropout, self.classifier = transform, dropout, classifier

    def reads(self, batch: PackedBatch) -> Tensor:
        return batch.targets["word_index"]

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return self.classifier(self.dropout(hidden if self.transform is None else self.transform(hidden)))

    def decision(self, scores: Tensor, name: Callable[[int], str]) -> Decision:
        """The labels of all tokens inside an entity (not `O`); of all tokens where there is none."""
        best = scores.argmax(-1)
        inside = [token for token, label in enumerate(best.tolist()) if name(label) not in ("", "O")]
        chosen = torch.tensor(inside or list(range(len(best))))
        return Decision("the labels", lambda scores: scores[chosen, best[chosen]].sum())


class SpanHead(Head):
    """Every token as the start and as the end of an answer: `[T, 2]` logits (Devlin et al. 2018, section 4.2)."""

    kind = "span"
    abilities = frozenset[Ability]({"span"})
    trained_for = "answer"

    def __init__(
        self, qa_outputs: nn.Linear, transform: nn.Module | None = None, dropout: nn.Module | None = None
    ) -> None:
        """transform: of the hidden states, in front of the dropout."""
        super().__init__()
        self.transform, self.dropout, self.qa_outputs = transform, dropout, qa_outputs

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        read = hidden if self.transform is None else self.transform(hidden)
        return self.qa_outputs(read if self.dropout is None else self.dropout(read))


class EmbeddingHead(Head):
    """A vector a sequence, `[N, E]`: its pooled hidden states (Reimers and Gurevych 2019, section 3), what
    `projections` make of them, of length one with `normalize`. Computed in float32."""

    kind = "embedding"
    abilities = frozenset[Ability]({"embedding"})
    in_float32 = True

    def __init__(
        self,
        pooling: Pooling | TokenPooling = "mean",
        normalize: bool = True,
        projections: Iterable[nn.Module] = (),
    ) -> None:
        """projections: each `[N, E]` → `[N, E']`, in order; most models have none."""
        super().__init__()
        self.pool = pooling if isinstance(pooling, TokenPooling) else TokenPooling((pooling,))
        self.projections = nn.ModuleList(projections)
        self.pooling = self.pool.modes[0] if len(self.pool.modes) == 1 else None
        self.normalize = normalize

    def normalized(self, normalize: bool) -> EmbeddingHead:
        """The same head, whose vectors are of length one or not."""
        return EmbeddingHead(self.pool, normalize, self.projections)

    def size(self, hidden_size: int) -> int:
        """E, of hidden states of this size."""
        widths = [module.linear.out_features for module in self.projections if isinstance(module, Dense)]
        return widths[-1] if widths else len(self.pool.modes) * hidden_size

    def reads(self, batch: PackedBatch) -> Tensor | None:
        return self.pool.reads(batch)

    @property
    def reads_first_tokens_only(self) -> bool:
        return set(self.pool.modes) == {"cls"}

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        vectors: Tensor = self.pool(hidden.float(), batch)
        for projection in self.projections:
            vectors = projection(vectors)
        return F.normalize(vectors, dim=-1) if self.normalize else vectors


def vector_head(model: Model) -> EmbeddingHead | None:
    """The model's head, where that gives vectors of texts."""
    return cast("EmbeddingHead", model.head) if "embedding" in model.head.abilities else None
