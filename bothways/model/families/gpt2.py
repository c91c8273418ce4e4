"""GPT-2 (Radford et al. 2019): the same layers with norms in front, read from left to right."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from bothways.errors import UserError
from bothways.model.attention_mask import CAUSAL
from bothways.model.config import FOREIGN_KEYS, EncoderConfig
from bothways.model.dropout import Dropout
from bothways.model.embeddings import Embeddings, LearnedPositions
from bothways.model.encoder import Encoder, PreNormLayer, SelfAttention
from bothways.model.families.base import Family, HeadForm, rename, tied_decoder
from bothways.model.families.parts import activation_function, hidden_dropout, layer_norm, linear, span_head
from bothways.model.lm_head import LMHeadTransform
from bothways.model.pretraining_heads import CausalLMHead
from bothways.model.task_heads import EncoderHead, SequenceHead, TokenHead


@dataclasses.dataclass(frozen=True)
class GPT2Config(EncoderConfig):
    """GPT-2's hyperparameters. intermediate_size: four times the hidden size where the file says None. embd_pdrop: the
    probability of dropping an embedding."""

    vocab_size: int = 50257
    hidden_act: str = "gelu_new"
    max_position_embeddings: int = 1024
    layer_norm_eps: float = 1e-5
    pad_token_id: int | None = None
    is_decoder: bool = True
    embd_pdrop: float = 0.1

    model_type: ClassVar[str] = "gpt2"
    keys: ClassVar[Mapping[str, str | None]] = {
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "intermediate_size": "n_inner",
        "hidden_act": "activation_function",
        "hidden_dropout_prob": "resid_pdrop",
        "attention_probs_dropout_prob": "attn_pdrop",
        "max_position_embeddings": "n_positions",
        "layer_norm_eps": "layer_norm_epsilon",
        "type_vocab_size": None,
        "is_decoder": None,
        "positions": None,
    }
    foreign_keys: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **FOREIGN_KEYS,
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "tie_word_embeddings": (True,),
    }
    constants: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.is_decoder:
            raise UserError("GPT-2 reads from left to right")

    @classmethod
    def from_size(cls, size: str, **overrides: Any) -> GPT2Config:
        """As of BERT; embeddings are dropped as hidden states are."""
        return super().from_size(size, **{"embd_pdrop": overrides.get("hidden_dropout_prob", 0.1), **overrides})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], path: Any = "config.json") -> GPT2Config:
        """As of BERT."""
        width = values.get("n_embd", cls.hidden_size)
        inner = values.get("n_inner") or (4 * width if isinstance(width, int) else width)
        return super().from_dict({**values, "n_inner": inner}, path)


def gpt2_encoder(config: GPT2Config) -> Encoder:
    size = config.hidden_size
    embeddings = Embeddings(
        nn.Embedding(config.vocab_size, size),
        None,
        LearnedPositions(config.max_position_embeddings, size),
        nn.Identity(),
        Dropout(config.embd_pdrop),
    )
    layers = [_layer(config) for _ in range(config.num_hidden_layers)]
    return Encoder(config, embeddings, layers, norm=layer_norm(config))


def _layer(config: GPT2Config) -> PreNormLayer:
    size, inner = config.hidden_size, config.intermediate_size
    attention = SelfAttention(size, config.num_attention_heads, config.attention_probs_dropout_prob, CAUSAL)
    feed_forward = nn.Linear(size, inner), activation_function(config.hidden_act), nn.Linear(inner, size)
    dropouts = hidden_dropout(config), hidden_dropout(config)
    return PreNormLayer(attention, feed_forward, (layer_norm(config), layer_norm(config)), dropouts)


def _causal_lm_head(encoder: Encoder, labels: int) -> CausalLMHead:
    token = encoder.embeddings.token
    return CausalLMHead(LMHeadTransform(nn.Identity(), nn.Identity(), nn.Identity(), token, bias=False))


def _sequence_head(encoder: Encoder, labels: int) -> SequenceHead:
    score = nn.Linear(encoder.config.hidden_size, labels, bias=False)
    return SequenceHead(nn.Identity(), nn.Identity(), score, reading="last")


def _token_head(encoder: Encoder, labels: int) -> TokenHead:
    dropout = encoder.config.classifier_dropout
    return TokenHead(Dropout(0.1 if dropout is None else dropout), linear(encoder.config, labels))


_LAYER = "encoder.layers.*"

GPT2 = Family(
    "gpt2",
    "GPT-2",
    GPT2Config,
    gpt2_encoder,
    "transformer",
    (
        rename("encoder.embeddings.token", "transformer.wte"),
        rename("encoder.embeddings.position", "transformer.wpe"),
        rename(f"{_LAYER}.attention.qkv", "transformer.h.*.attn.c_attn", transposed=True),
        rename(f"{_LAYER}.attention.output", "transformer.h.*.attn.c_proj", transposed=True),
        rename(f"{_LAYER}.attention_norm", "transformer.h.*.ln_1"),
        rename(f"{_LAYER}.intermediate", "transformer.h.*.mlp.c_fc", transposed=True),
        rename(f"{_LAYER}.output", "transformer.h.*.mlp.c_proj", transposed=True),
        rename(f"{_LAYER}.output_norm", "transformer.h.*.ln_2"),
        rename("encoder.norm", "transformer.ln_f"),
    ),
    {
        "span": HeadForm("GPT2ForQuestionAnswering", span_head, (rename("head.qa_outputs", "qa_outputs"),)),
        "sequence": HeadForm("GPT2ForSequenceClassification", _sequence_head, (rename("head.classifier", "score"),)),
        "token": HeadForm("GPT2ForTokenClassification", _token_head, (rename("head.classifier", "classifier"),)),
        "causal-LM": HeadForm("GPT2LMHeadModel", _causal_lm_head, (tied_decoder("lm_head.weight"),)),
        "encoder": HeadForm("GPT2Model", lambda encoder, labels: EncoderHead(nn.Identity(), reading="last")),
    },
)
