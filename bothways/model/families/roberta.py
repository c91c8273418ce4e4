"""RoBERTa (Liu et al. 2019), and what has its parts and names: XLM-RoBERTa (Conneau et al. 2019), CamemBERT (Martin et
al. 2019). Positions count from behind the padding id, and a classifier has a dense layer of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from torch import nn

from bothways.errors import UserError
from bothways.model.config import EncoderConfig
from bothways.model.embeddings import Embeddings, OffsetPositions
from bothways.model.encoder import Encoder
from bothways.model.families.base import Family, HeadForm, Rename, rename, tied_decoder
from bothways.model.families.bert import embedding_renames, layer_renames
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
from bothways.model.heads import HeadKind
from bothways.model.pretraining_heads import CausalLMHead, MaskedLMHead


@dataclasses.dataclass(frozen=True)
class RobertaConfig(EncoderConfig):
    """RoBERTa's hyperparameters; max_position_embeddings are the rows of the table, of which the first
    `pad_token_id + 1` stand for no position."""

    vocab_size: int = 50265
    max_position_embeddings: int = 514
    type_vocab_size: int = 1
    layer_norm_eps: float = 1e-5
    pad_token_id: int | None = 1

    model_type: ClassVar[str] = "roberta"
    keys: ClassVar[Mapping[str, str | None]] = {"positions": None}

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.pad_token_id or 0) < 0 or self.max_sequence_length < 8:
            raise UserError(
                f"pad_token_id {self.pad_token_id}, max_position_embeddings {self.max_position_embeddings}: positions "
                "count from behind the padding id, and at least 8 are expected"
            )

    @property
    def first_position(self) -> int:
        """The row of the position table that the first token reads."""
        return (self.pad_token_id or 0) + 1

    @property
    def max_sequence_length(self) -> int:
        return self.max_position_embeddings - self.first_position

    @classmethod
    def from_size(cls, size: str, **overrides: Any) -> Self:
        """As of BERT; `max_position_embeddings` are the positions that tokens can have."""
        pad = overrides.get("pad_token_id", 1) or 0
        rows = overrides.pop("max_position_embeddings", 512) + pad + 1
        return super().from_size(size, **overrides, max_position_embeddings=rows)


class XLMRobertaConfig(RobertaConfig):
    model_type: ClassVar[str] = "xlm-roberta"


class CamembertConfig(RobertaConfig):
    model_type: ClassVar[str] = "camembert"


def roberta_encoder(config: RobertaConfig) -> Encoder:
    size = config.hidden_size
    embeddings = Embeddings(
        nn.Embedding(config.vocab_size, size),
        nn.Embedding(config.type_vocab_size, size),
        OffsetPositions(config.max_position_embeddings, size, config.first_position),
        layer_norm(config),
        hidden_dropout(config),
    )
    return Encoder(config, embeddings, (bert_layer(config) for _ in range(config.num_hidden_layers)))


# The decoder's bias is held twice in some files.
LM_HEAD_SPELLINGS = ((r"^lm_head\.decoder\.bias$", "lm_head.bias"),)
LM_HEAD = (
    rename("head.lm.dense", "lm_head.dense"),
    rename("head.lm.norm", "lm_head.layer_norm"),
    tied_decoder("lm_head.decoder.weight"),
    rename("head.lm.decoder.bias", "lm_head.bias"),
)
DENSE_CLASSIFIER = (
    rename("head.pooler.dense", "classifier.dense"),
    rename("head.classifier", "classifier.out_proj"),
)
CLASSIFIER = rename("head.classifier", "classifier")
SPAN = (rename("head.qa_outputs", "qa_outputs"),)


def _heads(classes: str, pooler: Rename) -> Mapping[HeadKind, HeadForm]:
    """classes: what the names of the family's Hugging Face classes begin with."""
    return {
        "masked-LM": HeadForm(
            f"{classes}ForMaskedLM", lambda encoder, labels: MaskedLMHead(lm_transform(encoder)), LM_HEAD
        ),
        "span": HeadForm(f"{classes}ForQuestionAnswering", span_head, SPAN),
        "sequence": HeadForm(f"{classes}ForSequenceClassification", dense_sequence_head, DENSE_CLASSIFIER),
        "choice": HeadForm(f"{classes}ForMultipleChoice", choice_head, (pooler, CLASSIFIER)),
        "token": HeadForm(f"{classes}ForTokenClassification", token_head, (CLASSIFIER,)),
        "encoder": HeadForm(f"{classes}Model", bare_pooler, (pooler,)),
        "causal-LM": HeadForm(
            f"{classes}ForCausalLM", lambda encoder, labels: CausalLMHead(lm_transform(encoder)), LM_HEAD
        ),
    }


def _family(name: str, title: str, classes: str, config: type[RobertaConfig]) -> Family:
    renames = (*embedding_renames("roberta"), *layer_renames("roberta"))
    heads = _heads(classes, rename("head.pooler.dense", "roberta.pooler.dense"))
    return Family(name, title, config, roberta_encoder, "roberta", renames, heads, LM_HEAD_SPELLINGS)


ROBERTA = _family("roberta", "RoBERTa", "Roberta", RobertaConfig)
XLM_ROBERTA = _family("xlm-roberta", "XLM-RoBERTa", "XLMRoberta", XLMRobertaConfig)
CAMEMBERT = _family("camembert", "CamemBERT", "Camembert", CamembertConfig)
