"""Which token comes next: greedy, or drawn from the softmax with temperature, top-k, top-p, min-p and a repetition
penalty.

Shapes: N sequences, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

import torch
from torch import Tensor

from bothways.errors import UserError, option
from bothways.option_checks import require_at_least, require_name, require_seed, require_type


@dataclass(frozen=True)
class GenerationOptions:
    """How a text goes on.

    max_tokens: after so many it ends, if not before at `[EOS]`. greedy: always the likeliest token, instead of one that
    is drawn from what repetition_penalty, temperature, top_k, top_p and min_p, in this order, leave of the softmax.
    repetition_penalty: logits of tokens that the text has already are divided by it,
    negative ones multiplied (Keskar et al. 2019, section 4.1). temperature: logits are divided by it. top_k: the k
    likeliest tokens alone; 0: all. top_p: the fewest tokens that hold this probability (Holtzman et al. 2020).
    min_p: tokens with at least this share of the likeliest one's probability (Nguyen et al. 2024).
    samples: texts for each prompt. seed: what is drawn depends on it, on the sample's number and on the place in the
    text, not on other prompts.
    """

    max_tokens: int = 100
    greedy: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    samples: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1e-4 <= self.temperature <= 1e4:
            raise UserError(
                f"{option('temperature', self.temperature)}: expected a number above 0 (0.0001 to 10000); for the "
                f"likeliest token take {option('greedy', True)}"
            )
        if not 0 < self.top_p <= 1:
            raise UserError(f"{option('top_p', self.top_p)}: expected a probability, above 0 to 1")
        if not 0 <= self.min_p < 1:
            raise UserError(f"{option('min_p', self.min_p)}: expected a share, 0 to below 1")
        if not 0 < self.repetition_penalty < math.inf:
            raise UserError(f"{option('repetition_penalty', self.repetition_penalty)}: expected a number above 0")
        require_seed(self.seed)
        require_at_least(1, max_tokens=self.max_tokens, samples=self.samples)
        require_at_least(0, top_k=self.top_k)

    @property
    def uses_the_past(self) -> bool:
        """Whether what the text has already makes a difference."""
        return self.repetition_penalty != 1


def generation_options(values: Mapping[str, Any]) -> GenerationOptions:
    """Options by name. Raises UserError for names and types that there are not."""
    hints = get_type_hints(GenerationOptions)
    for name, value in values.items():
        require_name("generation", name, hints)
        require_type(name, value, hints[name])
    return GenerationOptions(**values)


def filtered_logits(logits: Tensor, options: GenerationOptions, past: Sequence[Tensor] = ()) -> Tensor:
    """The logits whose softmax the next token is drawn from: `[N, V]` → float32 `[N, V]`, -inf where nothing is drawn.

    past: the ids of each sequence so far, int64 `[length]`; wanted where `options.uses_the_past`.
    """
    logits = logits.float()
    if options.uses_the_past:
        logits = logits.clone()
        for row, ids in zip(logits, past, strict=True):
            ids = ids.unique()
            there = row[ids]
            row[ids] = torch.where(there > 0, there / options.repetition_penalty, there * options.repetition_penalty)
    if options.temperature != 1:
        logits = logits / options.temperature
    if 0 < options.top_k < logits.shape[-1]:
        least = logits.topk(options.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if options.top_p < 1:
        ordered, order = logits.sort(descending=True)
        shares = ordered.softmax(-1)
        beyond = shares.cumsum(-1) - shares >= options.top_p
        logits = logits.masked_fill(beyond.scatter(1, order, beyond), float("-inf"))
    if options.min_p > 0:
        relative = (logits - logits.amax(-1, keepdim=True)).exp()
        logits = logits.masked_fill(relative < options.min_p, float("-inf"))
    return logits


def draw_tokens(logits: Tensor, uniforms: Tensor) -> Tensor:
    """One token of each row's softmax, by inversion: `[N, V]` logits, float64 `[N]` in [0, 1) → int64 `[N]`."""
    cumulated = (logits - logits.amax(-1, keepdim=True)).exp().cumsum(-1, dtype=torch.float64)
    # scaled by the sum, so that a draw never falls behind the last token that can be drawn
    chosen = torch.searchsorted(cumulated, uniforms[:, None] * cumulated[:, -1:], right=True)
    return chosen[:, 0].clamp(max=logits.shape[-1] - 1)
