"""MPNet (Song et al. 2020): RoBERTa's positions and heads, no token types, and a bias of the scores by distance that
all layers share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from bothways.errors import UserError
from bothways.model.config import FOREIGN_KEYS
from bothways.model.embeddings import Embeddings, OffsetPositions, RelativeBias
from bothways.model.encoder import Encoder
from bothways.model.families.base import Family, HeadForm, rename
from bothways.model.families.bert import embedding_renames
from bothways.model.families.parts import (
    bare_pooler,
    bert_layer,
    choice_head,
    dense_sequence_head,
    hidden_dropout,
    layer_norm,
    lm_transform,
    span_head,
    token_head,
)
from bothways.model.families.roberta import (
    CLASSIFIER,
    DENSE_CLASSIFIER,
    LM_HEAD,
    LM_HEAD_SPELLINGS,
    SPAN,
    RobertaConfig,
)
from bothways.model.pretraining_heads import MaskedLMHead

BUCKETS = 32  # as `transformers` computes them, whatever relative_attention_num_buckets says


@dataclasses.dataclass(frozen=True)
class MPNetConfig(RobertaConfig):
    """MPNet's hyperparameters; its padding id is 1."""

    vocab_size: int = 30527
    layer_norm_eps: float = 1e-12

    model_type: ClassVar[str] = "mpnet"
    keys: ClassVar[Mapping[str, str | None]] = {"positions": None, "type_vocab_size": None, "is_decoder": None}
    foreign_keys: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **FOREIGN_KEYS,
        "relative_attention_num_buckets": (BUCKETS,),
        "is_decoder": (False,),
    }
    constants: ClassVar[Mapping[str, Any]] = {"relative_attention_num_buckets": BUCKETS}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pad_token_id != 1:
            raise UserError(
                f"MPNet counts positions from behind the padding id 1; this vocabulary's is {self.pad_token_id}"
            )


def mpnet_encoder(config: MPNetConfig) -> Encoder:
    size = config.hidden_size
    embeddings = Embeddings(
        nn.Embedding(config.vocab_size, size),
        None,
        OffsetPositions(config.max_position_embeddings, size, config.first_position),
        layer_norm(config),
        hidden_dropout(config),
    )
    return Encoder(
        config,
        embeddings,
        (bert_layer(config) for _ in range(config.num_hidden_layers)),
        relative_bias=RelativeBias(BUCKETS, config.num_attention_heads),
    )


_LAYER = "mpnet.encoder.layer.*"
_POOLER = rename("head.pooler.dense", "mpnet.pooler.dense")

MPNET = Family(
    "mpnet",
    "MPNet",
    MPNetConfig,
    mpnet_encoder,
    "mpnet",
    (
        *embedding_renames("mpnet"),
        rename("encoder.relative_bias", "mpnet.encoder.relative_attention_bias"),
        rename("encoder.layers.*.attention.qkv", *(f"{_LAYER}.attention.attn.{name}" for name in "qkv")),
        rename("encoder.layers.*.attention.output", f"{_LAYER}.attention.attn.o"),
        rename("encoder.layers.*.attention_norm", f"{_LAYER}.attention.LayerNorm"),
        rename("encoder.layers.*.intermediate", f"{_LAYER}.intermediate.dense"),
        rename("encoder.layers.*.output", f"{_LAYER}.output.dense"),
        rename("encoder.layers.*.output_norm", f"{_LAYER}.output.LayerNorm"),
    ),
    {
        "masked-LM": HeadForm("MPNetForMaskedLM", lambda encoder, labels: MaskedLMHead(lm_transform(encoder)), LM_HEAD),
        "span": HeadForm("MPNetForQuestionAnswering", span_head, SPAN),
        "sequence": HeadForm("MPNetForSequenceClassification", dense_sequence_head, DENSE_CLASSIFIER),
        "choice": HeadForm("MPNetForMultipleChoice", choice_head, (_POOLER, CLASSIFIER)),
        "token": HeadForm("MPNetForTokenClassification", token_head, (CLASSIFIER,)),
        "encoder": HeadForm("MPNetModel", bare_pooler, (_POOLER,)),
    },
    LM_HEAD_SPELLINGS,
)
