"""Masked language modelling: which tokens are to be predicted, and what stands in their place (Devlin et al.
2018, A.1).

Shapes: T tokens of a batch, N examples, M masked tokens.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from bothways.counter_random import uniforms
from bothways.errors import UserError
from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Masking:
    """Which tokens to predict and what stands in their place (Devlin et al. 2018, appendix A.1).

    end_rate: the rate moves from `rate` to this one, linearly over `steps` (Ankner et al. 2023, "Dynamic masking rate
    schedules for MLM pretraining": 30 % falling to 15 %); None: it stays.
    """

    rate: float = 0.15
    mask: float = 0.8
    random: float = 0.1  # the remaining tenth keeps its token
    whole_word: bool = False
    end_rate: float | None = None
    steps: int = 0

    def __post_init__(self) -> None:
        for name, rate in (("--mask-rate", self.rate), ("--mask-rate-end", self.end_rate)):
            if rate is not None and not 0 < rate < 1:
                raise UserError(f"{name} {rate}: expected a share between 0 and 1")
        if min(self.mask, self.random) < 0 or self.mask + self.random > 1:
            raise UserError(f"masking shares {self.mask} and {self.random}: expected two shares that sum to at most 1")

    def rate_at(self, step: int) -> float:
        """The rate of a step, from 0."""
        if self.end_rate is None:
            return self.rate
        return self.rate + (self.end_rate - self.rate) * min(1.0, step / max(1, self.steps))

    def between(self, first: int, end: int) -> Masking:
        """The masking of the steps from `first` to `end - 1`, counted from 0 again."""
        if self.end_rate is None:
            return self
        return dataclasses.replace(self, rate=self.rate_at(first), end_rate=self.rate_at(end), steps=end - first)


class Masker:
    """Chooses the tokens to predict and hides them."""

    def __init__(self, masking: Masking, tokenizer: Tokenizer) -> None:
        self.masking = masking
        self.vocab_size = tokenizer.vocab_size
        self.mask_id = tokenizer.mask_id
        self.special = np.zeros(tokenizer.vocab_size, dtype=bool)
        self.special[[tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id, tokenizer.mask_id]] = True
        self.continuation = tokenizer.continuations()
        ordinary = np.ones(tokenizer.vocab_size, dtype=bool)
        ordinary[list(tokenizer.special_ids)] = False
        self.replacements = np.flatnonzero(ordinary)

    def __call__(
        self, input_ids: np.ndarray, lengths: np.ndarray, keys: np.ndarray, step: int = 0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mask a packed batch: ids `[T]`, lengths `[N]`, and a uint64 key for each sequence `[N]`; step sets the rate.

        Each token (with `whole_word`: each word) is chosen with probability `rate`, on its own; what stands in its
        place is drawn for each token. The draws depend on the sequence's key and the position in it alone.
        Returns the ids to read `[T]`, the rows to predict `[M]` in ascending order, and their true ids `[M]`.
        """
        begin = np.repeat(np.cumsum(lengths) - lengths, lengths)
        positions = np.arange(len(input_ids)) - begin
        keys = np.repeat(keys, lengths)
        drawn_for = positions
        if self.masking.whole_word:
            starts = ~self.continuation[input_ids] | (positions == 0) | self.special[np.roll(input_ids, 1)]
            drawn_for = np.maximum.accumulate(np.where(starts, np.arange(len(input_ids)), 0)) - begin
        chosen = (uniforms(keys, drawn_for, 0) < self.masking.rate_at(step)) & ~self.special[input_ids]
        rows = np.flatnonzero(chosen)
        labels = input_ids[rows]
        place = uniforms(keys[rows], positions[rows], 1)
        replacement = self.replacements[
            (uniforms(keys[rows], positions[rows], 2) * len(self.replacements)).astype(np.int64)
        ]
        masking = self.masking
        shown = np.where(place < masking.mask, self.mask_id, labels)
        shown = np.where((place >= masking.mask) & (place < masking.mask + masking.random), replacement, shown)
        masked = input_ids.copy()
        masked[rows] = shown
        return masked, rows, labels
