"""The keys and values of texts in the making, kept from step to step, and attention that reads them.

Each text has a cache of its own, so texts may join and leave from step to step.

Shapes: T tokens, N texts, A heads, D = H/A, C columns of a cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bothways.batch import PackedBatch
from bothways.model.attention import Attend, attend
from bothways.model.attention_mask import CAUSAL, AttentionMask
from bothways.model.encoder import Encoder


class TextCache:
    """Keys and values of one text: of each layer `[2, A, C, D]`, a column a token, of which `length` are written.

    columns: the tokens that it has room for. layers: made by `allocate`; in a block they may have more columns, as many
    as the longest text there needs. block: of each layer the tensor `[2, N, A, C, D]` whose row `row` is this text's;
    None where it stands by itself.
    """

    def __init__(self, encoder: Encoder, columns: int) -> None:
        """With room for so many tokens."""
        self._encoder, self.columns, self.length = encoder, columns, 0
        self.layers: list[Tensor] = []
        self.block: list[Tensor] | None = None
        self.row = 0

    def allocate(self) -> None:
        """Take the memory; before a text's prompt is read, as those that only wait for that need none."""
        weight, config = self._encoder.embeddings.token.weight, self._encoder.config
        shape = (2, config.num_attention_heads, self.columns, config.head_size)
        self.layers = [weight.new_empty(shape) for _ in self._encoder.order]

    def copy(self) -> TextCache:
        """One that goes on by itself."""
        made = TextCache(self._encoder, self.columns)
        made.layers, made.length = [layer[:, :, : self.columns].clone() for layer in self.layers], self.length
        return made


def attend_within_prompts(caches: Sequence[TextCache]) -> Attend:
    """Attention for one walk through the layers over whole prompts, which fills their empty caches."""
    numbers = itertools.count()

    def attend_and_store(
        q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask, dropout: float
    ) -> Tensor:
        layer, lengths = next(numbers), batch.lengths.tolist()
        for cache, new in zip(caches, torch.stack((k, v)).split(lengths, 1), strict=True):
            cache.layers[layer][:, :, : new.shape[1]] = new.transpose(1, 2)
        return attend(q, k, v, batch, CAUSAL)

    return attend_and_store


def attend_to_caches(caches: Sequence[TextCache]) -> Attend:
    """Attention for one walk through the layers over one more token of each text: it writes the next column, and reads
    all up to it.

    On a CPU a text at a time, so that its bits do not depend on who goes on beside it; elsewhere all together.
    """
    if caches[0].layers[0].device.type == "cpu":
        return _attend_by_text(caches)
    return _attend_side_by_side(caches)


def _attend_by_text(caches: Sequence[TextCache]) -> Attend:
    numbers = itertools.count()

    def attend_to_text(
        q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask, dropout: float
    ) -> Tensor:
        layer, new = next(numbers), torch.stack((k, v), 1)
        attended = []
        for n, cache in enumerate(caches):
            kept, column = cache.layers[layer], cache.length
            kept[:, :, column] = new[n]
            keys, values = kept[:, None, :, : column + 1]
            attended.append(F.scaled_dot_product_attention(q[n : n + 1, :, None], keys, values))
        return torch.cat(attended)[:, :, 0]

    return attend_to_text


def _attend_side_by_side(caches: Sequence[TextCache]) -> Attend:
    numbers, block = itertools.count(), _block_of(caches)
    columns, device = [cache.length for cache in caches], block[0].device
    rows, column = torch.arange(len(caches), device=device), torch.tensor(columns, device=device)
    read, seen = max(columns) + 1, None
    if min(columns) + 1 < read:
        seen = (torch.arange(read, device=device) <= column[:, None])[:, None, None]

    def attend_to_block(
        q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask, dropout: float
    ) -> Tensor:
        keys, values = block[next(numbers)]
        keys[rows, :, column], values[rows, :, column] = k, v
        keys, values = keys[:, :, :read], values[:, :, :read]
        return F.scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=seen)[:, :, 0]

    return attend_to_block


def _block_of(caches: Sequence[TextCache]) -> list[Tensor]:
    """Of each layer `[2, N, A, C, D]`, the caches side by side; they are laid so anew where other texts go on together
    than before."""
    block = caches[0].block
    there = all(cache.block is block and cache.row == row for row, cache in enumerate(caches))
    if block is not None and there and block[0].shape[1] == len(caches):
        return block
    columns = max(cache.columns for cache in caches)  # and not of the blocks they are in: a longer text may have left
    made = []
    for layers in zip(*(cache.layers for cache in caches), strict=True):
        heads, _, size = layers[0].shape[1:]
        together = layers[0].new_zeros(2, len(caches), heads, columns, size)  # what is masked must be a number
        for row, (cache, layer) in enumerate(zip(caches, layers, strict=True)):
            together[:, row, :, : cache.length] = layer[:, :, : cache.length]
        made.append(together)
    for row, cache in enumerate(caches):
        cache.block, cache.row = made, row
        cache.layers = [layer[:, row] for layer in made]
    return made
