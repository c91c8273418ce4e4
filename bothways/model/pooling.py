"""How the hidden states of a sequence become one vector, and the modules that stand behind: those of
sentence-transformers (`Pooling`, `Dense` and `Normalize` there) on packed batches.

Shapes: T tokens, N sequences, R tokens that are read, H hidden, P poolings beside each other, E numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.batch import PROMPT_TARGET, PackedBatch

Pooling = Literal["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


def first_tokens(batch: PackedBatch) -> Tensor:
    """int64 `[N]`: where each sequence's `[CLS]` is."""
    return batch.cu_seqlens[:-1].long()


def last_tokens(batch: PackedBatch) -> Tensor:
    """int64 `[N]`: where each sequence's last token is."""
    return batch.cu_seqlens[1:].long() - 1


def sequence_means(hidden: Tensor, batch: PackedBatch) -> Tensor:
    """The mean of each sequence's hidden states, summed in float32 at least: `[T, H]` → `[N, H]`."""
    exact = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    return _Members(exact, batch).mean().to(hidden.dtype)


class TokenPooling(nn.Module):
    """The hidden states of each sequence's tokens, special ones included, as one vector: `[R, H]` → `[N, P x H]`.

    modes: `mean`; `cls`, the first token; `max` of each number; `mean_sqrt_len_tokens`, the sum divided by the root of
    the number of tokens; `weightedmean`, where token n counts n times (Muennighoff 2022); `lasttoken`.
    Several stand beside each other, in this order. include_prompt: without it the tokens of a prompt, of which
    `targets["prompt_tokens"]` says how many begin each sequence, are left out; the last token of all never is.
    """

    def __init__(self, modes: Sequence[Pooling] = ("mean",), include_prompt: bool = True) -> None:
        super().__init__()
        self.modes, self.include_prompt = tuple(modes), include_prompt

    @property
    def reads_single_tokens(self) -> bool:
        """Whether it reads each sequence's first or last token, and no other."""
        return set(self.modes) <= {"cls", "lasttoken"}

    def reads(self, batch: PackedBatch) -> Tensor | None:
        """int64 `[R]`: the tokens that it reads; None for all T."""
        if not self.reads_single_tokens:
            return None
        ends = {"cls": self._first, "lasttoken": last_tokens}
        return torch.cat([ends[mode](batch) for mode in self.modes])

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        if self.reads_single_tokens:
            return torch.cat(hidden.tensor_split(len(self.modes)), dim=-1)
        members = _Members(hidden, batch, self._left_out(batch))
        vectors = {"cls": lambda: hidden[self._first(batch)], "lasttoken": lambda: hidden[last_tokens(batch)]}
        return torch.cat([cast("Tensor", (vectors.get(mode) or getattr(members, mode))()) for mode in self.modes], -1)

    def _left_out(self, batch: PackedBatch) -> Tensor | None:
        """int64 `[N]`: how many tokens of each sequence are left out; None for none."""
        prompt = None if self.include_prompt else batch.targets.get(PROMPT_TARGET)
        return None if prompt is None else prompt.minimum(last_tokens(batch) - first_tokens(batch))

    def _first(self, batch: PackedBatch) -> Tensor:
        left_out = self._left_out(batch)
        return first_tokens(batch) if left_out is None else first_tokens(batch) + left_out

    def extra_repr(self) -> str:
        return ", ".join([*self.modes, *([] if self.include_prompt else ["without the prompt"])])


class _Members:
    """The tokens that are pooled: their hidden states, and of each its sequence and its place there, from 1."""

    def __init__(self, hidden: Tensor, batch: PackedBatch, left_out: Tensor | None = None) -> None:
        self.counts = batch.cu_seqlens.diff()  # not of the CPU's lengths: a GPU would be waited for
        self.hidden = hidden
        numbers = torch.arange(len(self.counts), device=hidden.device)
        self.sequence = torch.repeat_interleave(numbers, self.counts, output_size=len(hidden))
        self.place = torch.arange(1, len(hidden) + 1, device=hidden.device) - first_tokens(batch)[self.sequence]
        if left_out is not None:
            kept = self.place > left_out[self.sequence]
            self.hidden, self.sequence, self.place = hidden[kept], self.sequence[kept], self.place[kept]
            self.counts = self.counts - left_out

    def sums(self, values: Tensor) -> Tensor:
        """The sum over each sequence's tokens: `[…, E]` → `[N, E]`."""
        return values.new_zeros(len(self.counts), values.shape[1]).index_add(0, self.sequence, values)

    def mean(self) -> Tensor:
        return self.sums(self.hidden) / self.counts[:, None]

    def mean_sqrt_len_tokens(self) -> Tensor:
        return self.sums(self.hidden) / self.counts[:, None].sqrt()

    def weightedmean(self) -> Tensor:
        weight = self.place[:, None].to(self.hidden.dtype)
        return self.sums(self.hidden * weight) / self.sums(weight)

    def max(self) -> Tensor:
        lowest = self.hidden.new_full((len(self.counts), self.hidden.shape[1]), -torch.inf)
        return lowest.scatter_reduce(0, self.sequence[:, None].expand_as(self.hidden), self.hidden, "amax")


class Normalize(nn.Module):
    """Vectors of length one: `[N, E]` → `[N, E]`."""

    def forward(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1)


class Dense(nn.Module):
    """activation(W x + b) of each vector, `[N, E]` → `[N, E']`, with a residual also `+ residual(x)`."""

    def __init__(self, linear: nn.Linear, activation: nn.Module, residual: nn.Module | None = None) -> None:
        """residual: what leads from x to the sum: the identity, or a product where E' is another width."""
        super().__init__()
        self.linear, self.activation, self.residual = linear, activation, residual

    def forward(self, vectors: Tensor) -> Tensor:
        made: Tensor = self.activation(self.linear(vectors))
        return made if self.residual is None else made + self.residual(vectors)
