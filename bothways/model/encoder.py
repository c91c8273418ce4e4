"""The encoder: post-LN transformer layers over a packed batch (Devlin et al. 2018, section 3; Vaswani et al. 2017).
With causal attention the same layers are a language model's.

No part here reads a config or knows which model it is in: `assembly.py` puts them together.

Shapes: T tokens, R of them that a head reads, H hidden, A heads, D = H/A, I intermediate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from bothways.batch import PackedBatch
from bothways.model.attention import Attend, attend
from bothways.model.config import EncoderConfig
from bothways.model.embeddings import Embeddings


class SelfAttention(nn.Module):
    """Multi-head self-attention; query, key and value come from one matrix product.

    dropout: the probability of dropping an attention weight in training. causal: token t sees tokens up to t only.
    """

    def __init__(self, hidden_size: int, num_heads: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.num_heads, self.head_size = num_heads, hidden_size // num_heads
        self.dropout, self.causal = dropout, causal
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)

    def project(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each `[T, A, D]`."""
        q, k, v = self.qkv(hidden).unflatten(-1, (3, self.num_heads, self.head_size)).unbind(-3)
        return q, k, v

    def forward(self, hidden: Tensor, batch: PackedBatch, attend: Attend, only: Tensor | None = None) -> Tensor:
        q, k, v = self.project(hidden)
        attended = attend(q, k, v, batch, self.causal, self.dropout if self.training else 0.0)
        return self.output(_select(attended.flatten(-2), only))


class Layer(nn.Module):
    """Self-attention and feed-forward, each followed by dropout, residual and layer norm (post-LN).

    `layer(hidden [T, H], batch, attend)` → `[T, H]`; with `only`, int64 `[R]`, the output of these tokens alone,
    `[R, H]`.
    """

    def __init__(
        self,
        attention: SelfAttention,
        intermediate_size: int,
        activation: Callable[[Tensor], Tensor],
        norm: Callable[[], nn.LayerNorm],
        dropout: nn.Module,
    ) -> None:
        """norm: makes a layer norm over H; it is called twice."""
        super().__init__()
        hidden_size = attention.output.out_features
        self.attention = attention
        self.attention_norm = norm()
        self.intermediate = nn.Linear(hidden_size, intermediate_size)
        self.output = nn.Linear(intermediate_size, hidden_size)
        self.output_norm = norm()
        self.dropout = dropout
        self.activation = activation

    def forward(self, hidden: Tensor, batch: PackedBatch, attend: Attend, only: Tensor | None = None) -> Tensor:
        attended = self.attention(hidden, batch, attend, only)
        hidden = self.attention_norm(_select(hidden, only) + self.dropout(attended))
        feed_forward = self.output(self.activation(self.intermediate(hidden)))
        return self.output_norm(hidden + self.dropout(feed_forward))


class Encoder(nn.Module):
    """Embeddings and layers: packed batch → hidden states of the last layer, `[T, H]`; with `only`, int64 `[R]`, those
    of these tokens alone, `[R, H]`.

    For tokens no head reads, the last layer stops after the value product. That saves three quarters of its
    multiplications where a head reads first tokens only: 1/16 of BERT-base, 1/8 of a 6-layer model.
    """

    def __init__(self, config: EncoderConfig, embeddings: Embeddings, layers: Iterable[Layer]) -> None:
        """config: what embeddings and layers were assembled from; it is kept for the checkpoint."""
        super().__init__()
        self.config = config
        self.embeddings = embeddings
        self.layers = nn.ModuleList(layers)

    def forward(self, batch: PackedBatch, only: Tensor | None = None, attend: Attend = attend) -> Tensor:
        return self.run_layers(self.embeddings(batch), batch, only, attend)

    def run_layers(
        self,
        hidden: Tensor,
        batch: PackedBatch,
        only: Tensor | None = None,
        attend: Attend = attend,
        visit: Callable[[Tensor], object] | None = None,
    ) -> Tensor:
        """The layers on given embeddings `[T, H]`: as `forward`. visit: called with the output of each layer, in
        order."""
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden, batch, attend, only if number == last else None)
            if visit is not None:
                visit(hidden)
        return hidden


def _select(values: Tensor, index: Tensor | None) -> Tensor:
    return values if index is None else values.index_select(0, index)
