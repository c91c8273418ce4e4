"""Which tokens of its own sequence a token attends to, and what is added to the scores by distance.

Shapes: Q queries and K keys of one sequence, A heads, L tokens of the longest sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AttentionMask:
    """What attention masks besides the borders of sequences, which it never crosses.

    causal: token t sees tokens up to t only. window: a token sees those that are at most so far away on either side;
    None for any distance. bias: `[A, 2L - 1]`, added to a score q kᵀ / √D by its distance: column `key - query + L - 1`
    of the two tokens' places in the sequence.
    """

    causal: bool = False
    window: int | None = None
    bias: Tensor | None = None

    @property
    def is_plain(self) -> bool:
        """Whether there is neither window nor bias, so that a kernel need only know `causal`."""
        return self.window is None and self.bias is None

    def seen(self, queries: Tensor, keys: Tensor) -> Tensor | None:
        """bool `[Q, K]`: which of the keys each query sees; places in the sequence, int64 `[Q]` and `[K]`. None where
        every query sees every key."""
        distance = keys[None, :] - queries[:, None]
        seen = distance <= 0 if self.causal else None
        if self.window is not None:
            near = distance.abs() <= self.window
            seen = near if seen is None else seen & near
        return seen

    def added(self, queries: Tensor, keys: Tensor) -> Tensor | None:
        """What is added to the scores: `[A, Q, K]` of the bias, -inf where a key is not seen; bool `[Q, K]` of what is
        seen where there is no bias; None where nothing is added. Either is an `attn_mask` of torch's attention."""
        seen = self.seen(queries, keys)
        if self.bias is None:
            return seen
        added = self.by_distance(queries, keys)
        return added if seen is None else added.masked_fill(~seen, float("-inf"))

    def by_distance(self, queries: Tensor, keys: Tensor) -> Tensor:
        """The bias of each query and key, `[A, Q, K]`."""
        assert self.bias is not None
        return self.bias[:, keys[None, :] - queries[:, None] + self.bias.shape[1] // 2]


BOTH_WAYS, CAUSAL = AttentionMask(), AttentionMask(causal=True)


def places(first: int, end: int, like: Tensor) -> Tensor:
    """int64 `[end - first]` on the device of another tensor: places in a sequence."""
    return torch.arange(first, end, device=like.device)
