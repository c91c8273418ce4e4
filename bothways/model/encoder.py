"""The encoder: transformer layers over a packed batch (Vaswani et al. 2017; Devlin et al. 2018, section 3).

No part here reads a config or knows which model it is in: `families/` puts them together.

Shapes: T tokens, R of them that a head reads, H hidden, A heads, D = H/A, I intermediate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import cast

from torch import Tensor, nn

from bothways.batch import PackedBatch
from bothways.model.attention import Attend, attend
from bothways.model.attention_mask import BOTH_WAYS, AttentionMask
from bothways.model.config import EncoderConfig
from bothways.model.embeddings import Embeddings, RelativeBias, Rotary
from bothways.model.sublayer import activate, add_and_norm


class SelfAttention(nn.Module):
    """Multi-head self-attention; query, key and value come from one matrix product.

    dropout: the probability of dropping an attention weight in training. mask: what a token sees of its sequence.
    rotary: turns queries and keys by their positions; None leaves them. bias: of the two products.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        dropout: float = 0.0,
        mask: AttentionMask = BOTH_WAYS,
        *,
        rotary: Rotary | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_heads, self.head_size = num_heads, hidden_size // num_heads
        self.dropout, self.mask, self.rotary = dropout, mask, rotary
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=bias)
        self.output = nn.Linear(hidden_size, hidden_size, bias=bias)

    def project(self, hidden: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each `[T, A, D]`."""
        q, k, v = self.qkv(hidden).unflatten(-1, (3, self.num_heads, self.head_size)).unbind(-3)
        if self.rotary is None:
            return q, k, v
        return self.rotary(q, position_ids), self.rotary(k, position_ids), v

    def attended(self, hidden: Tensor, batch: PackedBatch, attend: Attend, only: Tensor | None = None) -> Tensor:
        """What the output's product reads: the heads side by side, `[T, H]` or `[R, H]`."""
        q, k, v = self.project(hidden, batch.position_ids)
        attended = attend(q, k, v, batch, self.mask, self.dropout if self.training else 0.0)
        return _select(attended.flatten(-2), only)

    def forward(self, hidden: Tensor, batch: PackedBatch, attend: Attend, only: Tensor | None = None) -> Tensor:
        return self.output(self.attended(hidden, batch, attend, only))


class Layer(nn.Module):
    """Self-attention and feed-forward, each followed by dropout, residual and layer norm (post-LN; BERT).

    `layer(hidden [T, H], batch, attend)` → `[T, H]`; with `only`, int64 `[R]`, the output of these tokens alone,
    `[R, H]`.
    """

    def __init__(
        self,
        attention: SelfAttention,
        feed_forward: tuple[nn.Linear, Callable[[Tensor], Tensor], nn.Linear],
        norms: tuple[nn.Module, nn.Module],
        dropouts: tuple[nn.Module, nn.Module],
    ) -> None:
        """feed_forward: `[H] → [I]` (of a gated one `[H] → [2I]`), the function between, and `[I] → [H]`. norms,
        dropouts: of attention and of feed-forward."""
        super().__init__()
        self.attention, self.attention_norm = attention, norms[0]
        self.intermediate, self.activation, self.output = feed_forward
        self.output_norm = norms[1]
        self.attention_dropout, self.output_dropout = dropouts

    def forward(self, hidden: Tensor, batch: PackedBatch, attend: Attend, only: Tensor | None = None) -> Tensor:
        attention = self.attention
        attended, hidden = attention.attended(hidden, batch, attend, only), _select(hidden, only)
        hidden = add_and_norm(attention.output, attended, hidden, self.attention_dropout, self.attention_norm)
        inner = activate(self.intermediate, self.activation, hidden)
        return add_and_norm(self.output, inner, hidden, self.output_dropout, self.output_norm)


class PreNormLayer(Layer):
    """As `Layer`, but each norm is in front of its part, and the residual goes past it (pre-LN; GPT-2, ModernBERT)."""

    def forward(self, hidden: Tensor, batch: PackedBatch, attend: Attend, only: Tensor | None = None) -> Tensor:
        attended = self.attention(self.attention_norm(hidden), batch, attend, only)
        hidden = _select(hidden, only) + self.attention_dropout(attended)
        inner = activate(self.intermediate, self.activation, self.output_norm(hidden))
        return hidden + self.output_dropout(self.output(inner))


class Gate(nn.Module):
    """Of `[…, 2I]` the first half through `activation`, times the second, and dropout: `[…, I]` (GLU variants, Shazeer
    2020)."""

    def __init__(self, activation: Callable[[Tensor], Tensor], dropout: nn.Module) -> None:
        super().__init__()
        self.activation, self.dropout = activation, dropout

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        gated: Tensor = self.dropout(self.activation(first) * second)
        return gated


class Encoder(nn.Module):
    """Embeddings and layers: packed batch → hidden states of the last layer, `[T, H]`; with `only`, int64 `[R]`, those
    of these tokens alone, `[R, H]`.

    For tokens no head reads, the last layer stops after the value product. That saves three quarters of its
    multiplications where a head reads first tokens only: 1/16 of BERT-base, 1/8 of a 6-layer model.
    """

    def __init__(
        self,
        config: EncoderConfig,
        embeddings: Embeddings,
        layers: Iterable[Layer],
        *,
        order: Sequence[int] | None = None,
        norm: nn.Module | None = None,
        relative_bias: RelativeBias | None = None,
    ) -> None:
        """config: what embeddings and layers were assembled from; it is kept for the checkpoint. order: which of the
        layers run, one after another; by default each once. norm: behind the last layer. relative_bias: added to the
        scores of every layer."""
        super().__init__()
        self.config = config
        self.embeddings = embeddings
        self.layers = nn.ModuleList(layers)
        self.order = tuple(range(len(self.layers)) if order is None else order)
        self.norm = norm
        self.relative_bias = relative_bias

    def layers_in_order(self) -> Iterator[Layer]:
        """The layers as they run; one whose weights are shared comes several times."""
        return (cast("Layer", self.layers[index]) for index in self.order)

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
        """The layers on given embeddings `[T, H]`: as `forward`. visit: called with the output of each layer, in order;
        of the last behind the norm."""
        if self.relative_bias is not None:
            attend = _with_bias(attend, self.relative_bias.bias(batch.max_seqlen))
        last = len(self.order) - 1
        for number, layer in enumerate(self.layers_in_order()):
            hidden = layer(hidden, batch, attend, only if number == last else None)
            if number == last and self.norm is not None:
                hidden = self.norm(hidden)
            if visit is not None:
                visit(hidden)
        return hidden


def _with_bias(attend: Attend, bias: Tensor) -> Attend:
    """Attention that adds a bias `[A, 2L - 1]` to the scores."""

    def attend_with_bias(
        q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask, dropout: float
    ) -> Tensor:
        return attend(q, k, v, batch, replace(mask, bias=bias), dropout)

    return attend_with_bias


def _select(values: Tensor, index: Tensor | None) -> Tensor:
    return values if index is None else values.index_select(0, index)
