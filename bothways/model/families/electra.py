"""ELECTRA (Clark et al. 2020): BERT with token tables that may be narrower than the layers, trained as a discriminator
that tells replaced tokens from original ones beside a small generator that fills masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import nn

from bothways.model.config import FOREIGN_KEYS, SIZE_RANGE, SIZE_RANGES, EncoderConfig
from bothways.model.dropout import Dropout
from bothways.model.embeddings import Embeddings, LearnedPositions
from bothways.model.encoder import Encoder
from bothways.model.families.base import Family, HeadForm, rename, tied_decoder
from bothways.model.families.bert import embedding_renames, layer_renames
from bothways.model.families.parts import (
    activation_function,
    bert_layer,
    dense_sequence_head,
    hidden_dropout,
    layer_norm,
    linear,
    lm_transform,
    span_head,
    token_head,
    unpooled,
)
from bothways.model.heads import Pooler
from bothways.model.pretraining_heads import CausalLMHead, DiscriminatorHead, MaskedLMHead
from bothways.model.task_heads import ChoiceHead

NARROW = 128  # width of the token tables of small models (Clark et al. 2020, table 6; Lan et al. 2019, section 3.1)


@dataclasses.dataclass(frozen=True)
class ElectraConfig(EncoderConfig):
    """ELECTRA's hyperparameters. embedding_size: E, the width of the token tables."""

    embedding_size: int = 128
    hidden_size: int = 256
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    summary_last_dropout: float = 0.1

    model_type: ClassVar[str] = "electra"
    keys: ClassVar[Mapping[str, str | None]] = {"positions": None}
    foreign_keys: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **FOREIGN_KEYS,
        "summary_type": ("first",),
        "summary_use_proj": (True,),
        "summary_activation": ("gelu",),
    }
    size_ranges: ClassVar[Mapping[str, tuple[int, int]]] = {**SIZE_RANGES, "embedding_size": SIZE_RANGE}

    @classmethod
    def sizes(cls, layers: int, hidden_size: int, intermediate_size: int, heads: int) -> dict[str, Any]:
        shape = super().sizes(layers, hidden_size, intermediate_size, heads)
        return {**shape, "embedding_size": min(hidden_size, NARROW) if hidden_size < 768 else hidden_size}


def factorised_embeddings(config: EncoderConfig, width: int) -> Embeddings:
    """Tables of this width, and a projection to H."""
    return Embeddings(
        nn.Embedding(config.vocab_size, width),
        nn.Embedding(config.type_vocab_size, width),
        LearnedPositions(config.max_position_embeddings, width),
        layer_norm(config, width),
        hidden_dropout(config),
        nn.Linear(width, config.hidden_size),
    )


def electra_encoder(config: ElectraConfig) -> Encoder:
    embeddings = factorised_embeddings(config, config.embedding_size)
    if config.embedding_size == config.hidden_size:
        embeddings.projection = None
    return Encoder(config, embeddings, (bert_layer(config) for _ in range(config.num_hidden_layers)))


def _choice_head(encoder: Encoder, labels: int) -> ChoiceHead:
    config: Any = encoder.config
    return ChoiceHead(Pooler(linear(config), F.gelu), Dropout(config.summary_last_dropout), linear(config, 1))


def _discriminator_head(encoder: Encoder, labels: int = 0) -> DiscriminatorHead:
    config = encoder.config
    return DiscriminatorHead(linear(config), activation_function(config.hidden_act), linear(config, 1))


def generator_config(config: ElectraConfig) -> ElectraConfig:
    """The generator beside a discriminator: as deep, and narrower (Clark et al. 2020, section 3.2: a quarter to a half
    of the discriminator's width; here a half, in whole heads)."""
    heads = max(1, config.num_attention_heads // 2)
    width = heads * config.head_size
    return dataclasses.replace(
        config, hidden_size=width, num_attention_heads=heads, intermediate_size=max(1, config.intermediate_size // 2)
    )


_CLASSIFIER = rename("head.classifier", "classifier")
_LM = (
    rename("head.lm.dense", "generator_predictions.dense"),
    rename("head.lm.norm", "generator_predictions.LayerNorm"),
    tied_decoder("generator_lm_head.weight"),
    rename("head.lm.decoder.bias", "generator_lm_head.bias"),
)

ELECTRA = Family(
    "electra",
    "ELECTRA",
    ElectraConfig,
    electra_encoder,
    "electra",
    (
        *embedding_renames("electra"),
        rename("encoder.embeddings.projection", "electra.embeddings_project"),
        *layer_renames("electra"),
    ),
    {
        "masked-LM": HeadForm(
            "ElectraForMaskedLM", lambda encoder, labels: MaskedLMHead(lm_transform(encoder, F.gelu)), _LM
        ),
        "discriminator": HeadForm(
            "ElectraForPreTraining",
            _discriminator_head,
            (
                rename("head.dense", "discriminator_predictions.dense"),
                rename("head.prediction", "discriminator_predictions.dense_prediction"),
            ),
        ),
        "span": HeadForm("ElectraForQuestionAnswering", span_head, (rename("head.qa_outputs", "qa_outputs"),)),
        "sequence": HeadForm(
            "ElectraForSequenceClassification",
            lambda encoder, labels: dense_sequence_head(encoder, labels, F.gelu),
            (rename("head.pooler.dense", "classifier.dense"), rename("head.classifier", "classifier.out_proj")),
        ),
        "choice": HeadForm(
            "ElectraForMultipleChoice",
            _choice_head,
            (rename("head.pooler.dense", "sequence_summary.summary"), _CLASSIFIER),
        ),
        "token": HeadForm("ElectraForTokenClassification", token_head, (_CLASSIFIER,)),
        "encoder": HeadForm("ElectraModel", unpooled),
        "causal-LM": HeadForm(
            "ElectraForCausalLM", lambda encoder, labels: CausalLMHead(lm_transform(encoder, F.gelu)), _LM
        ),
    },
)
