"""Pretraining's objectives: masked language model, with or without next sentence (Devlin et al. 2018, section 3.1), and
the next token (Bengio et al. 2003; Radford et al. 2018, section 3.1).

Shapes: N sequences, R rows that a head scores, M masked tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from bothways.model.encoder import Encoder
from bothways.model.families import build_head
from bothways.model.heads import Head
from bothways.model.lm_head import LazyLogits
from bothways.model.pretraining_heads import PretrainingScores
from bothways.tasks.base import at_least_float32


@dataclass(frozen=True)
class MaskedLMObjective:
    """Masked LM: cross-entropy of the masked tokens. `mlm_accuracy` is the share of them whose first guess is right.

    Targets of a batch: `mlm_index` and `mlm_labels`, int64 `[M]`.
    """

    @property
    def losses(self) -> tuple[str, ...]:
        return ("mlm_loss",)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        return {}

    def head(self, encoder: Encoder) -> Head:
        return build_head(encoder, "masked-LM")

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        masked = targets["mlm_labels"].shape[0]
        return {"mlm_loss": masked, "mlm_accuracy": masked}

    def sums(self, scores: PretrainingScores, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """scores: `mlm` `[M, V]`."""
        loss, right = scores.mlm.cross_entropy(targets["mlm_labels"])
        return {"mlm_loss": loss, "mlm_accuracy": right}


@dataclass(frozen=True)
class BertObjective(MaskedLMObjective):
    """Masked LM and a decision on the two segments of a pair: the two means are added.

    pairs: `nsp`, next sentence: next_sentence_label 0 = B follows A, 1 = random; or `sop`, sentence order: 0 = in
    order, 1 = swapped. It names the figures: `nsp_loss`, `nsp_accuracy`. Target of a batch besides those of masked LM:
    `next_sentence_label`, int64 `[N]`.
    """

    pairs: Literal["nsp", "sop"] = "nsp"

    @property
    def losses(self) -> tuple[str, ...]:
        return ("mlm_loss", f"{self.pairs}_loss")

    def head(self, encoder: Encoder) -> Head:
        return build_head(encoder, "pretraining")

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        pairs = targets["next_sentence_label"].shape[0]
        return {**super().counts(targets), f"{self.pairs}_loss": pairs, f"{self.pairs}_accuracy": pairs}

    def sums(self, scores: PretrainingScores, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """scores: `mlm` `[M, V]`, `nsp` `[N, 2]`."""
        assert scores.nsp is not None
        labels = targets["next_sentence_label"]
        return {
            **super().sums(scores, targets),
            f"{self.pairs}_loss": F.cross_entropy(at_least_float32(scores.nsp), labels, reduction="sum"),
            f"{self.pairs}_accuracy": (scores.nsp.detach().argmax(-1) == labels).sum(),
        }


@dataclass(frozen=True)
class NextTokenObjective:
    """Next token: cross-entropy of the token that follows each. `lm_accuracy` is the share of them whose first guess is
    right.

    Target of a batch: `next_tokens`, int64 `[R]`.
    """

    @property
    def losses(self) -> tuple[str, ...]:
        return ("lm_loss",)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        return {}

    def head(self, encoder: Encoder) -> Head:
        return build_head(encoder, "causal-LM")

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        tokens = targets["next_tokens"].shape[0]
        return {"lm_loss": tokens, "lm_accuracy": tokens}

    def sums(self, scores: LazyLogits, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """scores: `[R, V]`."""
        loss, right = scores.cross_entropy(targets["next_tokens"])
        return {"lm_loss": loss, "lm_accuracy": right}
