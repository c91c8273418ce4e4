"""Heads of tasks: labels of texts and of words, choices, answers, vectors; and what a bare encoder gives.

Shapes: T tokens, N sequences, R tokens that a head reads, H hidden, C labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.batch import PackedBatch
from bothways.model.heads import Ability, Decision, Head, HeadKind, Pooling, first_tokens, last_tokens

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
    """A vector a sequence, `[N, H]`: its first token, or the mean over its tokens, `[CLS]` and `[SEP]` included
    (Reimers and Gurevych 2019, section 3); of length one with `normalize`. Has no weights."""

    kind = "embedding"
    abilities = frozenset[Ability]({"embedding"})

    def __init__(self, pooling: Pooling = "mean", normalize: bool = True) -> None:
        super().__init__()
        self.pooling, self.normalize = pooling, normalize

    def reads(self, batch: PackedBatch) -> Tensor | None:
        return first_tokens(batch) if self.pooling == "cls" else None

    @property
    def reads_first_tokens_only(self) -> bool:
        return self.pooling == "cls"

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        vectors = hidden.float() if self.pooling == "cls" else sequence_means(hidden.float(), batch)
        return F.normalize(vectors, dim=-1) if self.normalize else vectors


def sequence_means(hidden: Tensor, batch: PackedBatch) -> Tensor:
    """The mean of each sequence's hidden states: `[T, H]` → `[N, H]`."""
    lengths = batch.lengths.to(hidden.device)
    number = torch.repeat_interleave(torch.arange(len(lengths), device=hidden.device), lengths)
    sums = hidden.new_zeros(len(lengths), hidden.shape[1]).index_add(0, number, hidden)
    return sums / lengths[:, None]
