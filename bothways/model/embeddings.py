"""Token + token type + position embeddings (Devlin et al. 2018, figure 2); positions are learned or sinusoidal.

Shapes: T tokens, H hidden.
"""

from __future__ import annotations

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


class Embeddings(nn.Module):
    """The sum of three tables, layer norm, dropout: packed batch → `[T, H]`."""

    def __init__(
        self,
        token: nn.Embedding,
        token_type: nn.Embedding,
        position: nn.Embedding,
        norm: nn.LayerNorm,
        dropout: nn.Module,
    ) -> None:
        super().__init__()
        self.token = token
        self.token_type = token_type
        self.position = position
        self.norm = norm
        self.dropout = dropout

    def forward(self, batch: PackedBatch) -> Tensor:
        summed = self.token(batch.input_ids) + self.token_type(batch.token_type_ids) + self.position(batch.position_ids)
        return self.dropout(self.norm(summed))
