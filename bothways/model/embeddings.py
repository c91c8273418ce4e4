"""Token + token type + position embeddings (Devlin et al. 2018, figure 2), and the other ways to tell positions: fixed
sinusoids, rotation of queries and keys, a bias of the scores by distance.

Shapes: T tokens, H hidden, A heads, D = H/A.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bothways.batch import PackedBatch


def sinusoids(rows: int, columns: int) -> Tensor:
    """The table of Vaswani et al. 2017, section 3.5, float32 `[rows, columns]`: sin(p / 10000^(2i / columns)) in column
    2i and the cosine of the same in column 2i + 1."""
    angles = torch.arange(rows).double()[:, None] / 10000 ** (torch.arange(0, columns, 2).double() / columns)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :columns].float()


class LearnedPositions(nn.Embedding):
    """A trained row for each position."""


class SinusoidalPositions(nn.Embedding):
    """A fixed table of sines and cosines, times `scale`.

    Scaled by the deviation of initial token embeddings, positions and tokens have the sizes relative to each other that
    the transformer gives them: it multiplies token embeddings by √H instead. Of the sum only that ratio survives the
    layer norm behind it. In this form the file opens in `transformers` as a table of positions like any other.
    """

    def __init__(self, rows: int, hidden_size: int, scale: float) -> None:
        super().__init__(rows, hidden_size)
        self.weight = nn.Parameter(sinusoids(rows, hidden_size) * scale, requires_grad=False)


class OffsetPositions(nn.Embedding):
    """A trained row for each position, the first of them behind `offset` rows that no token reads (RoBERTa, whose rows
    up to that of the padding id are its)."""

    def __init__(self, rows: int, hidden_size: int, offset: int) -> None:
        super().__init__(rows, hidden_size)
        self.offset = offset

    def forward(self, position_ids: Tensor) -> Tensor:
        return super().forward(position_ids + self.offset)


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021, section 3.4.2, with the halves of a head as the pairs, as `transformers` has
    them): queries and keys `[…, A, D]` are turned by angles of `position / base^(2i / D)`, i from 0 to D/2 - 1."""

    def __init__(self, base: float) -> None:
        super().__init__()
        self.base = base

    def forward(self, x: Tensor, position_ids: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        frequencies = self.base ** -(torch.arange(half, device=x.device) / half)
        angles = (position_ids[:, None].float() * frequencies)[:, None]  # [T, 1, D/2]
        cos, sin = angles.cos(), angles.sin()
        first, second = x.float().split(half, -1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


class RelativeBias(nn.Embedding):
    """A learned number for each head and bucket of distances, `[A, 2L - 1]` for sequences of up to L tokens (T5, Raffel
    et al. 2020, section 2.1; MPNet). Half of the buckets are for keys before the query; in either half, half are for
    distances of their own and the others for ranges that grow up to `farthest`."""

    def __init__(self, buckets: int, num_heads: int, farthest: int = 128) -> None:
        super().__init__(buckets, num_heads)
        self.farthest = farthest

    def bias(self, longest: int) -> Tensor:
        """Column `key - query + longest - 1` is of that distance."""
        distance = torch.arange(1 - longest, longest, device=self.weight.device)
        return self.weight[self._bucket(distance)].t()

    def _bucket(self, distance: Tensor) -> Tensor:
        half = self.num_embeddings // 2
        exact = half // 2
        away = distance.abs()
        growth = (away.clamp(min=1).float() / exact).log() / math.log(self.farthest / exact) * (half - exact)
        far = (exact + growth.long()).clamp(max=half - 1)
        return torch.where(away < exact, away, far) + half * (distance > 0)


class Embeddings(nn.Module):
    """The sum of the tables that there are, layer norm, dropout, and a projection where the tables are narrower than
    the layers: packed batch → `[T, H]`."""

    def __init__(
        self,
        token: nn.Embedding,
        token_type: nn.Embedding | None,
        position: nn.Embedding | None,
        norm: nn.Module,
        dropout: nn.Module,
        projection: nn.Linear | None = None,
    ) -> None:
        super().__init__()
        self.token = token
        self.token_type = token_type
        self.position = position
        self.norm = norm
        self.dropout = dropout
        self.projection = projection

    def forward(self, batch: PackedBatch) -> Tensor:
        summed = self.token(batch.input_ids)
        if self.token_type is not None:
            summed = summed + self.token_type(batch.token_type_ids)
        if self.position is not None:
            summed = summed + self.position(batch.position_ids)
        embedded: Tensor = self.dropout(self.norm(summed))
        return embedded if self.projection is None else self.projection(embedded)
