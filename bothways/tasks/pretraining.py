"""Pretraining's objective: masked language model, with or without next sentence (Devlin et al. 2018, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from bothways.model.encoder import Encoder
from bothways.model.heads import MaskedLMHead, PretrainingHead, PretrainingScores


@dataclass(frozen=True)
class MaskedLMObjective:
    """Cross-entropy of the masked tokens; `mlm_accuracy` is the share of them whose first guess is right."""

    def head(self, encoder: Encoder) -> nn.Module:
        return MaskedLMHead(encoder)

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, int]:
        masked = targets["mlm_labels"].shape[0]
        return {"mlm_loss": masked, "mlm_accuracy": masked}

    def sums(self, scores: PretrainingScores, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        labels, logits = targets["mlm_labels"], scores.mlm
        return {
            "mlm_loss": F.cross_entropy(
                logits if logits.dtype.itemsize > 4 else logits.float(), labels, reduction="sum"
            ),
            "mlm_accuracy": (logits.detach().argmax(-1) == labels).sum(),
        }


@dataclass(frozen=True)
class BertObjective(MaskedLMObjective):
    """Masked LM plus next sentence: the two means are added. next_sentence_label: 0 = B follows A, 1 = random."""

    def head(self, encoder: Encoder) -> nn.Module:
        return PretrainingHead(encoder)

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, int]:
        pairs = targets["next_sentence_label"].shape[0]
        return {**super().counts(targets), "nsp_loss": pairs, "nsp_accuracy": pairs}

    def sums(self, scores: PretrainingScores, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert scores.nsp is not None
        labels, logits = targets["next_sentence_label"], scores.nsp
        return {
            **super().sums(scores, targets),
            "nsp_loss": F.cross_entropy(
                logits if logits.dtype.itemsize > 4 else logits.float(), labels, reduction="sum"
            ),
            "nsp_accuracy": (logits.detach().argmax(-1) == labels).sum(),
        }
