"""BERT (Devlin et al. 2018), and the names that its descendants keep."""

from __future__ import annotations

from torch import nn

from bothways.model.config import EncoderConfig
from bothways.model.embeddings import Embeddings, LearnedPositions, SinusoidalPositions
from bothways.model.encoder import Encoder
from bothways.model.families.base import Family, HeadForm, Rename, rename, tied_decoder
from bothways.model.families.parts import (
    bare_pooler,
    bert_layer,
    choice_head,
    hidden_dropout,
    layer_norm,
    lm_transform,
    next_sentence_head,
    sequence_head,
    span_head,
    token_head,
)
from bothways.model.pretraining_heads import CausalLMHead, MaskedLMHead


def bert_encoder(config: EncoderConfig) -> Encoder:
    size = config.hidden_size
    embeddings = Embeddings(
        nn.Embedding(config.vocab_size, size),
        nn.Embedding(config.type_vocab_size, size),
        _positions(config),
        layer_norm(config),
        hidden_dropout(config),
    )
    return Encoder(config, embeddings, (bert_layer(config) for _ in range(config.num_hidden_layers)))


def _positions(config: EncoderConfig) -> nn.Embedding:
    rows, size = config.max_position_embeddings, config.hidden_size
    if config.positions == "sinusoidal":
        return SinusoidalPositions(rows, size, config.initializer_range)
    return LearnedPositions(rows, size)


def embedding_renames(prefix: str) -> tuple[Rename, ...]:
    """The three tables and their norm, as BERT's descendants name them."""
    tables = {"token": "word_embeddings", "token_type": "token_type_embeddings", "position": "position_embeddings"}
    names = {**tables, "norm": "LayerNorm"}
    return tuple(
        rename(f"encoder.embeddings.{ours}", f"{prefix}.embeddings.{theirs}") for ours, theirs in names.items()
    )


def layer_renames(prefix: str) -> tuple[Rename, ...]:
    """A layer, as BERT's descendants name it."""
    ours, theirs = "encoder.layers.*", f"{prefix}.encoder.layer.*"
    return (
        rename(f"{ours}.attention.qkv", *(f"{theirs}.attention.self.{name}" for name in ("query", "key", "value"))),
        rename(f"{ours}.attention.output", f"{theirs}.attention.output.dense"),
        rename(f"{ours}.attention_norm", f"{theirs}.attention.output.LayerNorm"),
        rename(f"{ours}.intermediate", f"{theirs}.intermediate.dense"),
        rename(f"{ours}.output", f"{theirs}.output.dense"),
        rename(f"{ours}.output_norm", f"{theirs}.output.LayerNorm"),
    )


# TensorFlow's names of a layer norm's tensors, in the oldest files
TENSORFLOW_NORMS = ((r"\.gamma$", ".weight"), (r"\.beta$", ".bias"))

_POOLER = rename("head.pooler.dense", "bert.pooler.dense")
_CLASSIFIER = rename("head.classifier", "classifier")
_LM = (
    rename("head.lm.dense", "cls.predictions.transform.dense"),
    rename("head.lm.norm", "cls.predictions.transform.LayerNorm"),
    tied_decoder("cls.predictions.decoder.weight"),
    rename("head.lm.decoder.bias", "cls.predictions.bias"),
)

BERT = Family(
    "bert",
    "BERT",
    EncoderConfig,
    bert_encoder,
    "bert",
    (*embedding_renames("bert"), *layer_renames("bert")),
    {
        "pretraining": HeadForm(
            "BertForPreTraining", next_sentence_head, (_POOLER, *_LM, rename("head.nsp", "cls.seq_relationship"))
        ),
        "masked-LM": HeadForm("BertForMaskedLM", lambda encoder, labels: MaskedLMHead(lm_transform(encoder)), _LM),
        "span": HeadForm("BertForQuestionAnswering", span_head, (rename("head.qa_outputs", "qa_outputs"),)),
        "sequence": HeadForm("BertForSequenceClassification", sequence_head, (_POOLER, _CLASSIFIER)),
        "token": HeadForm("BertForTokenClassification", token_head, (_CLASSIFIER,)),
        "encoder": HeadForm("BertModel", bare_pooler, (_POOLER,)),
        "causal-LM": HeadForm("BertLMHeadModel", lambda encoder, labels: CausalLMHead(lm_transform(encoder)), _LM),
        "choice": HeadForm("BertForMultipleChoice", choice_head, (_POOLER, _CLASSIFIER)),
    },
    (*TENSORFLOW_NORMS, (r"^cls\.predictions\.decoder\.bias$", "cls.predictions.bias")),
)
