"""Token + segment + learned position embeddings (Devlin et al. 2018, figure 2)."""

from __future__ import annotations

from torch import Tensor, nn

from bothways.data.packing import PackedBatch
from bothways.model.config import BertConfig
from bothways.model.dropout import Dropout


class Embeddings(nn.Module):
    """Sum of three tables, layer norm, dropout: packed batch → `[T, H]`."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.hidden_size)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, batch: PackedBatch) -> Tensor:
        summed = self.token(batch.input_ids) + self.token_type(batch.token_type_ids) + self.position(batch.position_ids)
        return self.dropout(self.norm(summed))
