"""The keys and values of texts in the making, kept from step to step, and attention that reads them.

Shapes: T tokens, N texts, A heads, D = H/A, C columns of the cache.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bothways.batch import PackedBatch
from bothways.model.attention import Attend, attend
from bothways.model.attention_mask import CAUSAL, AttentionMask
from bothways.model.encoder import Encoder


class KVCache:
    """Keys and values of every layer, each `[N, A, C, D]`: a row a text, a column a token.

    Prompts are aligned at their ends, so that a step writes one column for all texts; the columns before a shorter
    prompt are masked.
    """

    def __init__(self, encoder: Encoder, lengths: Tensor, room: int) -> None:
        """lengths: those of the prompts, int64 `[N]` on the CPU; room: how many tokens can be appended to each."""
        weight, config = encoder.embeddings.token.weight, encoder.config
        self._columns = int(lengths.max())
        shape = (len(lengths), config.num_attention_heads, self._columns + room, config.head_size)
        self._layers = [(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in encoder.order]
        self._mask = self._mask_of((self._columns - lengths).to(weight.device))

    def _mask_of(self, unused: Tensor) -> Tensor | None:
        """bool `[N, 1, 1, C]`, False in the `unused` columns before a text; None where every text has all columns."""
        self._unused = unused
        if not bool(unused.any()):
            return None
        columns = torch.arange(self._layers[0][0].shape[2], device=unused.device)
        return (columns >= unused[:, None])[:, None, None]

    def for_prompts(self) -> Attend:
        """Attention for one walk through the layers over the packed prompts: it fills the cache."""
        layers = iter(self._layers)

        def attend_and_store(
            q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask, dropout: float
        ) -> Tensor:
            lengths = batch.lengths.tolist()
            for stored, new in zip(next(layers), (k, v), strict=True):
                for row, tokens in enumerate(new.split(lengths)):
                    stored[row, :, self._columns - lengths[row] : self._columns] = tokens.transpose(0, 1)
            return attend(q, k, v, batch, CAUSAL)

        return attend_and_store

    def for_next_token(self) -> Attend:
        """Attention for one walk through the layers over one more token of each text: it writes the next column, and
        reads all up to it."""
        layers = iter(self._layers)
        column, self._columns = self._columns, self._columns + 1
        written = None if self._mask is None else self._mask[..., : self._columns]

        def attend_to_cache(
            q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask, dropout: float
        ) -> Tensor:
            keys, values = next(layers)
            keys[:, :, column], values[:, :, column] = k, v
            keys, values = keys[:, :, : self._columns], values[:, :, : self._columns]
            return F.scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=written)[:, :, 0]

        return attend_to_cache

    def select(self, index: Tensor) -> None:
        """Go on with these texts, int64 indices; one that is named twice goes on twice."""
        self._layers = [(keys[index], values[index]) for keys, values in self._layers]
        self._mask = self._mask_of(self._unused[index])
