"""Parts as several families have them: what BERT's descendants share, by the names of `EncoderConfig`.

Shapes: H hidden, E width of the token table, C labels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.model.attention_mask import BOTH_WAYS, CAUSAL
from bothways.model.config import EncoderConfig
from bothways.model.dropout import Dropout
from bothways.model.encoder import Encoder, Layer, SelfAttention
from bothways.model.heads import Pooler
from bothways.model.lm_head import LMHeadTransform
from bothways.model.pretraining_heads import PretrainingHead
from bothways.model.task_heads import ChoiceHead, EncoderHead, SequenceHead, SpanHead, TokenHead


def activation_function(name: str) -> Callable[[Tensor], Tensor]:
    """The function that a config's `hidden_act` names: `gelu` is the exact one, by the error function."""
    if name == "gelu":
        return F.gelu
    if name == "relu":
        return F.relu
    return lambda x: F.gelu(x, approximate="tanh")


def layer_norm(config: EncoderConfig, size: int | None = None) -> nn.LayerNorm:
    """size: H where it is not said."""
    return nn.LayerNorm(config.hidden_size if size is None else size, eps=config.layer_norm_eps)


def hidden_dropout(config: EncoderConfig) -> Dropout:
    return Dropout(config.hidden_dropout_prob)


def classifier_dropout(config: EncoderConfig) -> Dropout:
    dropout = config.classifier_dropout
    return Dropout(config.hidden_dropout_prob if dropout is None else dropout)


def linear(config: EncoderConfig, outputs: int | None = None) -> nn.Linear:
    """From H to so many numbers, by default H."""
    return nn.Linear(config.hidden_size, config.hidden_size if outputs is None else outputs)


def bert_layer(config: EncoderConfig) -> Layer:
    """BERT's layer: the norm behind, a plain feed-forward, learned positions beneath."""
    size, mask = config.hidden_size, CAUSAL if config.is_decoder else BOTH_WAYS
    attention = SelfAttention(size, config.num_attention_heads, config.attention_probs_dropout_prob, mask)
    activation = activation_function(config.hidden_act)
    inner, outer = nn.Linear(size, config.intermediate_size), nn.Linear(config.intermediate_size, size)
    norms = layer_norm(config), layer_norm(config)
    return Layer(attention, (inner, activation, outer), norms, (hidden_dropout(config), hidden_dropout(config)))


def lm_transform(encoder: Encoder, activation: Callable[[Tensor], Tensor] | None = None) -> LMHeadTransform:
    """Transform and tied decoder as BERT has them, to the width of the token table. activation: by default the
    layers'."""
    config, token = encoder.config, encoder.embeddings.token
    width = token.embedding_dim
    chosen = activation_function(config.hidden_act) if activation is None else activation
    return LMHeadTransform(linear(config, width), chosen, layer_norm(config, width), token)


def tanh_pooler(encoder: Encoder) -> Pooler:
    """BERT's."""
    return Pooler(linear(encoder.config))


def bare_pooler(encoder: Encoder, labels: int = 0) -> EncoderHead:
    return EncoderHead(tanh_pooler(encoder))


def unpooled(encoder: Encoder, labels: int = 0) -> EncoderHead:
    """The head of a family whose bare encoder pools nothing."""
    return EncoderHead(nn.Identity())


def next_sentence_head(encoder: Encoder, labels: int = 0) -> PretrainingHead:
    return PretrainingHead(lm_transform(encoder), tanh_pooler(encoder), linear(encoder.config, 2))


def sequence_head(encoder: Encoder, labels: int) -> SequenceHead:
    """BERT's classifier: on its pooler."""
    config = encoder.config
    return SequenceHead(tanh_pooler(encoder), classifier_dropout(config), linear(config, labels))


def dense_sequence_head(
    encoder: Encoder, labels: int, activation: Callable[[Tensor], Tensor] = torch.tanh
) -> SequenceHead:
    """RoBERTa's classifier: a dense layer of its own, with dropout on either side."""
    config = encoder.config
    pooler = Pooler(linear(config), activation, dropout=classifier_dropout(config))
    return SequenceHead(pooler, classifier_dropout(config), linear(config, labels))


def choice_head(encoder: Encoder, labels: int = 0) -> ChoiceHead:
    return ChoiceHead(tanh_pooler(encoder), classifier_dropout(encoder.config), linear(encoder.config, 1))


def token_head(encoder: Encoder, labels: int) -> TokenHead:
    return TokenHead(classifier_dropout(encoder.config), linear(encoder.config, labels))


def span_head(encoder: Encoder, labels: int = 0) -> SpanHead:
    return SpanHead(linear(encoder.config, 2))
