"""The encoder: post-LN transformer layers over a packed batch (Devlin et al. 2018, section 3; Vaswani et al. 2017).
With `is_decoder` in the config attention is causal, and the same layers are a language model's.

Shapes: T tokens, R of them that a head reads, H hidden, A heads, D = H/A.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from bothways.batch import PackedBatch
from bothways.model.attention import attend
from bothways.model.config import EncoderConfig
from bothways.model.dropout import Dropout
from bothways.model.embeddings import Embeddings


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The function behind `hidden_act`: `gelu` is the exact one, by the error function."""
    if name == "gelu":
        return F.gelu
    if name == "relu":
        return F.relu
    return lambda x: F.gelu(x, approximate="tanh")


class SelfAttention(nn.Module):
    """Multi-head self-attention; query, key and value come from one matrix product."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.num_heads, self.head_size = config.num_attention_heads, config.head_size
        self.causal = config.is_decoder
        self.dropout = config.attention_probs_dropout_prob
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)

    def project(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each `[T, A, D]`."""
        q, k, v = self.qkv(hidden).unflatten(1, (3, self.num_heads, self.head_size)).unbind(1)
        return q, k, v

    def forward(self, hidden: Tensor, batch: PackedBatch, rows: Tensor | None = None) -> Tensor:
        q, k, v = self.project(hidden)
        dropout = self.dropout if self.training else 0.0
        attended = attend(
            q, k, v, batch.cu_seqlens, batch.max_seqlen, self.causal, lengths=batch.lengths, dropout=dropout
        )
        return self.output(_rows(attended.flatten(1), rows))


class Layer(nn.Module):
    """Self-attention and feed-forward, each followed by dropout, residual and layer norm (post-LN).

    rows: int64 `[R]`, the tokens whose output is wanted, `[R, H]`; without it all of them, `[T, H]`.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.intermediate = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output = nn.Linear(config.intermediate_size, config.hidden_size)
        self.output_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.activation = activation(config.hidden_act)

    def forward(self, hidden: Tensor, batch: PackedBatch, rows: Tensor | None = None) -> Tensor:
        return self.finish(_rows(hidden, rows), self.attention(hidden, batch, rows))

    def finish(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """What follows attention: `[R, H]` as it came in, and what attention made of it, → `[R, H]`."""
        hidden = self.attention_norm(hidden + self.dropout(attended))
        feed_forward = self.output(self.activation(self.intermediate(hidden)))
        return self.output_norm(hidden + self.dropout(feed_forward))


class Encoder(nn.Module):
    """Embeddings and N layers: packed batch → hidden states of the last layer, `[T, H]`, or `[R, H]` of the `rows`
    asked.

    The last layer computes no more than its attention for tokens that nobody asks for: of its products that is three
    quarters, a sixteenth of BERT-base and an eighth of a 6-layer model where a head reads first tokens only.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, batch: PackedBatch, rows: Tensor | None = None) -> Tensor:
        hidden = self.embeddings(batch)
        for layer in self.layers[:-1]:
            hidden = layer(hidden, batch)
        return self.layers[-1](hidden, batch, rows)


def _rows(values: Tensor, rows: Tensor | None) -> Tensor:
    return values if rows is None else values.index_select(0, rows)
