"""An encoder from its config: the one place that knows which parts a BERT is made of, and of what sizes."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from bothways.model.config import EncoderConfig
from bothways.model.dropout import Dropout
from bothways.model.embeddings import Embeddings, LearnedPositions, SinusoidalPositions
from bothways.model.encoder import Encoder, Layer, SelfAttention


def build_encoder(config: EncoderConfig) -> Encoder:
    """An encoder of this shape, with torch's random weights."""
    size = config.hidden_size
    activation = activation_function(config.hidden_act)

    def norm() -> nn.LayerNorm:
        return nn.LayerNorm(size, eps=config.layer_norm_eps)

    def layer() -> Layer:
        attention = SelfAttention(
            size, config.num_attention_heads, config.attention_probs_dropout_prob, config.is_decoder
        )
        return Layer(attention, config.intermediate_size, activation, norm, Dropout(config.hidden_dropout_prob))

    embeddings = Embeddings(
        nn.Embedding(config.vocab_size, size),
        nn.Embedding(config.type_vocab_size, size),
        _positions(config),
        norm(),
        Dropout(config.hidden_dropout_prob),
    )
    return Encoder(config, embeddings, (layer() for _ in range(config.num_hidden_layers)))


def _positions(config: EncoderConfig) -> nn.Embedding:
    rows, size = config.max_position_embeddings, config.hidden_size
    if config.positions == "sinusoidal":
        return SinusoidalPositions(rows, size, config.initializer_range)
    return LearnedPositions(rows, size)


def activation_function(name: str) -> Callable[[Tensor], Tensor]:
    """The function that a config's `hidden_act` names: `gelu` is the exact one, by the error function."""
    if name == "gelu":
        return F.gelu
    if name == "relu":
        return F.relu
    return lambda x: F.gelu(x, approximate="tanh")
