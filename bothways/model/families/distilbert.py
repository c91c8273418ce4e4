"""DistilBERT (Sanh et al. 2019): BERT without token types and pooler, under names of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import nn

from bothways.model.config import FOREIGN_KEYS, EncoderConfig
from bothways.model.dropout import Dropout
from bothways.model.embeddings import Embeddings, LearnedPositions
from bothways.model.encoder import Encoder
from bothways.model.families.base import Family, HeadForm, rename, tied_decoder
from bothways.model.families.parts import (
    bert_layer,
    classifier_dropout,
    hidden_dropout,
    layer_norm,
    linear,
    lm_transform,
    span_head,
    unpooled,
)
from bothways.model.heads import Pooler
from bothways.model.pretraining_heads import MaskedLMHead
from bothways.model.task_heads import ChoiceHead, SequenceHead, TokenHead


@dataclasses.dataclass(frozen=True)
class DistilBertConfig(EncoderConfig):
    """DistilBERT's hyperparameters; the epsilon of its norms is always 1e-12."""

    num_hidden_layers: int = 6
    classifier_dropout: float | None = 0.2

    model_type: ClassVar[str] = "distilbert"
    keys: ClassVar[Mapping[str, str | None]] = {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "classifier_dropout": "seq_classif_dropout",
        "type_vocab_size": None,
        "layer_norm_eps": None,
        "is_decoder": None,
        "positions": None,
    }
    foreign_keys: ClassVar[Mapping[str, tuple[Any, ...]]] = {**FOREIGN_KEYS, "is_decoder": (False,)}
    constants: ClassVar[Mapping[str, Any]] = {}


def distilbert_encoder(config: DistilBertConfig) -> Encoder:
    size = config.hidden_size
    embeddings = Embeddings(
        nn.Embedding(config.vocab_size, size),
        None,
        LearnedPositions(config.max_position_embeddings, size),
        layer_norm(config),
        hidden_dropout(config),
    )
    return Encoder(config, embeddings, (bert_layer(config) for _ in range(config.num_hidden_layers)))


def _sequence_parts(encoder: Encoder, labels: int) -> tuple[Pooler, Dropout, nn.Linear]:
    config = encoder.config
    return Pooler(linear(config), F.relu), classifier_dropout(config), linear(config, labels)


_LAYER = "distilbert.transformer.layer.*"
_LM = (
    rename("head.lm.dense", "vocab_transform"),
    rename("head.lm.norm", "vocab_layer_norm"),
    tied_decoder("vocab_projector.weight"),
    rename("head.lm.decoder.bias", "vocab_projector.bias"),
)
_CLASSIFIER = rename("head.classifier", "classifier")
_POOLED = (rename("head.pooler.dense", "pre_classifier"), _CLASSIFIER)

DISTILBERT = Family(
    "distilbert",
    "DistilBERT",
    DistilBertConfig,
    distilbert_encoder,
    "distilbert",
    (
        rename("encoder.embeddings.token", "distilbert.embeddings.word_embeddings"),
        rename("encoder.embeddings.position", "distilbert.embeddings.position_embeddings"),
        rename("encoder.embeddings.norm", "distilbert.embeddings.LayerNorm"),
        rename("encoder.layers.*.attention.qkv", *(f"{_LAYER}.attention.{name}_lin" for name in "qkv")),
        rename("encoder.layers.*.attention.output", f"{_LAYER}.attention.out_lin"),
        rename("encoder.layers.*.attention_norm", f"{_LAYER}.sa_layer_norm"),
        rename("encoder.layers.*.intermediate", f"{_LAYER}.ffn.lin1"),
        rename("encoder.layers.*.output", f"{_LAYER}.ffn.lin2"),
        rename("encoder.layers.*.output_norm", f"{_LAYER}.output_layer_norm"),
    ),
    {
        "masked-LM": HeadForm(
            "DistilBertForMaskedLM", lambda encoder, labels: MaskedLMHead(lm_transform(encoder)), _LM
        ),
        "span": HeadForm("DistilBertForQuestionAnswering", span_head, (rename("head.qa_outputs", "qa_outputs"),)),
        "sequence": HeadForm(
            "DistilBertForSequenceClassification",
            lambda encoder, labels: SequenceHead(*_sequence_parts(encoder, labels)),
            _POOLED,
        ),
        "choice": HeadForm(
            "DistilBertForMultipleChoice", lambda encoder, labels: ChoiceHead(*_sequence_parts(encoder, 1)), _POOLED
        ),
        "token": HeadForm(
            "DistilBertForTokenClassification",
            lambda encoder, labels: TokenHead(hidden_dropout(encoder.config), linear(encoder.config, labels)),
            (_CLASSIFIER,),
        ),
        "encoder": HeadForm("DistilBertModel", unpooled),
    },
)
