"""ALBERT (Lan et al. 2019): narrow token tables, and one layer that runs many times."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from bothways.errors import UserError
from bothways.model.config import FOREIGN_KEYS, SIZE_RANGE, SIZE_RANGES, EncoderConfig
from bothways.model.encoder import Encoder
from bothways.model.families.base import Family, HeadForm, rename, tied_decoder
from bothways.model.families.bert import embedding_renames
from bothways.model.families.electra import NARROW, factorised_embeddings
from bothways.model.families.parts import (
    bare_pooler,
    bert_layer,
    choice_head,
    lm_transform,
    next_sentence_head,
    sequence_head,
    span_head,
    token_head,
)
from bothways.model.pretraining_heads import MaskedLMHead


@dataclasses.dataclass(frozen=True)
class AlbertConfig(EncoderConfig):
    """ALBERT's hyperparameters. embedding_size: E, the width of the token tables. num_hidden_groups: layers with
    weights of their own; each runs `num_hidden_layers / num_hidden_groups` times."""

    vocab_size: int = 30000
    embedding_size: int = NARROW
    num_hidden_groups: int = 1
    hidden_act: str = "gelu_new"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    classifier_dropout: float | None = 0.1

    model_type: ClassVar[str] = "albert"
    keys: ClassVar[Mapping[str, str | None]] = {
        "classifier_dropout": "classifier_dropout_prob",
        "is_decoder": None,
        "positions": None,
    }
    foreign_keys: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **FOREIGN_KEYS,
        "inner_group_num": (1,),
        "is_decoder": (False,),
    }
    size_ranges: ClassVar[Mapping[str, tuple[int, int]]] = {
        **SIZE_RANGES,
        "embedding_size": SIZE_RANGE,
        "num_hidden_groups": SIZE_RANGE,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_hidden_groups > self.num_hidden_layers:
            layers = self.num_hidden_layers
            raise UserError(f"num_hidden_groups {self.num_hidden_groups}: expected at most num_hidden_layers {layers}")


def albert_encoder(config: AlbertConfig) -> Encoder:
    repeats = config.num_hidden_layers / config.num_hidden_groups
    return Encoder(
        config,
        factorised_embeddings(config, config.embedding_size),
        (bert_layer(config) for _ in range(config.num_hidden_groups)),
        order=[int(number / repeats) for number in range(config.num_hidden_layers)],
    )


_LAYER = "albert.encoder.albert_layer_groups.*.albert_layers.0"
_POOLER = rename("head.pooler.dense", "albert.pooler")
_CLASSIFIER = rename("head.classifier", "classifier")
_LM = (
    rename("head.lm.dense", "predictions.dense"),
    rename("head.lm.norm", "predictions.LayerNorm"),
    tied_decoder("predictions.decoder.weight"),
    rename("head.lm.decoder.bias", "predictions.bias"),
)

ALBERT = Family(
    "albert",
    "ALBERT",
    AlbertConfig,
    albert_encoder,
    "albert",
    (
        *embedding_renames("albert"),
        rename("encoder.embeddings.projection", "albert.encoder.embedding_hidden_mapping_in"),
        rename("encoder.layers.*.attention.qkv", *(f"{_LAYER}.attention.{name}" for name in ("query", "key", "value"))),
        rename("encoder.layers.*.attention.output", f"{_LAYER}.attention.dense"),
        rename("encoder.layers.*.attention_norm", f"{_LAYER}.attention.LayerNorm"),
        rename("encoder.layers.*.intermediate", f"{_LAYER}.ffn"),
        rename("encoder.layers.*.output", f"{_LAYER}.ffn_output"),
        rename("encoder.layers.*.output_norm", f"{_LAYER}.full_layer_layer_norm"),
    ),
    {
        "pretraining": HeadForm(
            "AlbertForPreTraining", next_sentence_head, (_POOLER, *_LM, rename("head.nsp", "sop_classifier.classifier"))
        ),
        "masked-LM": HeadForm("AlbertForMaskedLM", lambda encoder, labels: MaskedLMHead(lm_transform(encoder)), _LM),
        "span": HeadForm("AlbertForQuestionAnswering", span_head, (rename("head.qa_outputs", "qa_outputs"),)),
        "sequence": HeadForm("AlbertForSequenceClassification", sequence_head, (_POOLER, _CLASSIFIER)),
        "token": HeadForm("AlbertForTokenClassification", token_head, (_CLASSIFIER,)),
        "encoder": HeadForm("AlbertModel", bare_pooler, (_POOLER,)),
        "choice": HeadForm("AlbertForMultipleChoice", choice_head, (_POOLER, _CLASSIFIER)),
    },
    ((r"^predictions\.decoder\.bias$", "predictions.bias"),),
)
