"""Token + segment + position embeddings (Devlin et al. 2018, figure 2); positions are learned or sinusoidal."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bothways.batch import PackedBatch
from bothways.model.config import EncoderConfig
from bothways.model.dropout import Dropout


def sinusoids(rows: int, columns: int) -> Tensor:
    """The table of Vaswani et al. 2017, section 3.5, float32 `[rows, columns]`: sin(p / 10000^(2i / columns)) in column
    2i and the cosine of the same in column 2i + 1."""
    angles = torch.arange(rows).double()[:, None] / 10000 ** (torch.arange(0, columns, 2).double() / columns)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :columns].float()


class LearnedPositions(nn.Embedding):
    """A trained row for each position."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config.max_position_embeddings, config.hidden_size)


class SinusoidalPositions(nn.Embedding):
    """A fixed table of sines and cosines.

    It is scaled by `initializer_range`: the transformer multiplies token embeddings by √H instead, which makes them of
    size one beside it. The layer norm behind the sum leaves only their ratio, which so is the same; and the file opens
    in `transformers` as a table of positions like any other.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config.max_position_embeddings, config.hidden_size)
        self.weight = nn.Parameter(sinusoids(*self.weight.shape) * config.initializer_range, requires_grad=False)


POSITIONS: dict[str, Callable[[EncoderConfig], nn.Embedding]] = {
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
}


class Embeddings(nn.Module):
    """Sum of three tables, layer norm, dropout: packed batch → `[T, H]`."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.hidden_size)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.position = POSITIONS[config.positions](config)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, batch: PackedBatch) -> Tensor:
        summed = self.token(batch.input_ids) + self.token_type(batch.token_type_ids) + self.position(batch.position_ids)
        return self.dropout(self.norm(summed))
