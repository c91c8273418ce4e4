"""Heads of pretraining: scores over the vocabulary, next sentences, replaced tokens.

Shapes: T tokens, N sequences, R tokens that a head reads, H hidden, V vocabulary, M masked tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bothways.batch import PackedBatch
from bothways.model.heads import Ability, Decision, Head, HeadKind, Pooler
from bothways.model.lm_head import LazyLogits, LMHeadTransform
from bothways.model.pooling import first_tokens


@dataclass
class PretrainingScores:
    """mlm: scores `[M, V]` of the tokens in `targets["mlm_index"]`. nsp: `[N, 2]` logits, 0 = B follows A, or None."""

    mlm: LazyLogits
    nsp: Tensor | None


class LMHead(Head):
    """Scores over the vocabulary, by a decoder that is tied to the encoder's token table."""

    def __init__(self, lm: LMHeadTransform) -> None:
        super().__init__()
        self.lm = lm

    def decision(self, scores: Any, name: Callable[[int], str]) -> Decision | None:
        """The likeliest piece at the first token that is scored."""

        def logits(scores: Any) -> Tensor:
            found = self.vocabulary_scores(scores)
            assert found is not None
            return found.logits[0]

        piece = int(logits(scores).argmax())
        return Decision(name(piece), lambda scores: logits(scores)[piece])


class MaskedLMHead(LMHead):
    """Masked-language-model scores of the tokens in `targets["mlm_index"]`: never the logits of a token nobody
    reads."""

    kind: ClassVar[HeadKind] = "masked-LM"
    abilities = frozenset[Ability]({"language-model", "masked-LM"})

    def reads(self, batch: PackedBatch) -> Tensor:
        return batch.targets["mlm_index"]

    def forward(self, hidden: Tensor, batch: PackedBatch) -> PretrainingScores:
        return PretrainingScores(self.lm(hidden), None)

    def vocabulary_scores(self, scores: PretrainingScores) -> LazyLogits:
        return scores.mlm

    def num_scored(self, batch: PackedBatch) -> int:
        return len(batch.targets["mlm_index"])


class PretrainingHead(MaskedLMHead):
    """Masked LM and next sentence together, as BERT is pretrained."""

    kind: ClassVar[HeadKind] = "pretraining"
    abilities = frozenset[Ability]({"language-model", "masked-LM", "next-sentence"})

    def __init__(self, lm: LMHeadTransform, pooler: Pooler, nsp: nn.Linear) -> None:
        super().__init__(lm)
        self.pooler, self.nsp = pooler, nsp

    def reads(self, batch: PackedBatch) -> Tensor:
        return torch.cat([first_tokens(batch), batch.targets["mlm_index"]])

    def forward(self, hidden: Tensor, batch: PackedBatch) -> PretrainingScores:
        first, masked = hidden.tensor_split([batch.num_sequences])
        return PretrainingScores(self.lm(masked), self.nsp(self.pooler(first)))


class CausalLMHead(LMHead):
    """Scores of the token that follows: `[T, V]`, or `[R, V]` where the batch says in `targets["lm_index"]` behind
    which tokens they are wanted."""

    kind = "causal-LM"
    abilities = frozenset[Ability]({"language-model", "causal-LM"})

    def reads(self, batch: PackedBatch) -> Tensor | None:
        return batch.targets.get("lm_index")

    def forward(self, hidden: Tensor, batch: PackedBatch) -> LazyLogits:
        return self.lm(hidden)

    def vocabulary_scores(self, scores: LazyLogits) -> LazyLogits:
        return scores

    def num_scored(self, batch: PackedBatch) -> int:
        read = self.reads(batch)
        return batch.num_tokens if read is None else len(read)


class DiscriminatorHead(Head):
    """Whether each token is another than the text's own: logits `[T]` (Clark et al. 2020, section 2)."""

    kind = "discriminator"
    abilities = frozenset[Ability]({"replaced-token"})

    def __init__(self, dense: nn.Linear, activation: Callable[[Tensor], Tensor], prediction: nn.Linear) -> None:
        super().__init__()
        self.dense, self.activation, self.prediction = dense, activation, prediction

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        return self.prediction(self.activation(self.dense(hidden))).squeeze(-1)
