"""Replaced-token detection as an objective (Clark et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch.nn.functional as F
from torch import Tensor

from bothways.errors import UserError, option
from bothways.model.encoder import Encoder
from bothways.model.families import build_encoder, build_head
from bothways.model.families.electra import ElectraConfig, generator_config
from bothways.model.heads import Head, Model
from bothways.model.pretraining_heads import DiscriminatorHead
from bothways.model.replaced_tokens import ReplacedTokenHead, ReplacedTokenScores, share_tables
from bothways.tasks.base import at_least_float32
from bothways.tasks.pretraining import MaskedLMObjective

DISCRIMINATOR_WEIGHT = 50.0  # of its loss beside the generator's (Clark et al. 2020, section 3.2)


@dataclass(frozen=True)
class ReplacedTokenObjective(MaskedLMObjective):
    """Masked LM of a generator, and of every token whether it is the text's own: the two means are added, the second
    times `DISCRIMINATOR_WEIGHT`. `rtd_accuracy` is the share of tokens that are told right.

    Targets of a batch besides those of masked LM: `original_ids`, int64 `[T]`, the text's own tokens.
    """

    @property
    def losses(self) -> tuple[str, ...]:
        return ("mlm_loss", "rtd_loss")

    @property
    def loss_weights(self) -> Mapping[str, float]:
        return {"rtd_loss": DISCRIMINATOR_WEIGHT}

    def head(self, encoder: Encoder) -> Head:
        """Raises UserError for an encoder that is not ELECTRA's."""
        config = encoder.config
        if not isinstance(config, ElectraConfig):
            asked, wanted = option("objective", "electra"), option("family", "electra")
            raise UserError(f"{asked} trains ELECTRA, not {config.model_type}; {wanted}")
        small = build_encoder(generator_config(config))
        generator = Model(small, build_head(small, "masked-LM"))
        share_tables(generator, encoder)
        return ReplacedTokenHead(cast("DiscriminatorHead", build_head(encoder, "discriminator")), generator)

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, float]:
        tokens = len(targets["original_ids"])
        return {**super().counts(targets), "rtd_loss": tokens, "rtd_accuracy": tokens}

    def sums(self, scores: ReplacedTokenScores, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        loss, right = scores.mlm.cross_entropy(targets["mlm_labels"])
        logits, truth = at_least_float32(scores.replaced), scores.input_ids != targets["original_ids"]
        return {
            "mlm_loss": loss,
            "mlm_accuracy": right,
            "rtd_loss": F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype), reduction="sum"),
            "rtd_accuracy": ((logits.detach() > 0) == truth).sum(),
        }
