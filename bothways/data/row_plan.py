"""The plan of labelled rows: the k-th batch as a pure function of (rows, seed, k).

Rows fit in memory, so that the plan needs no cursor; a token store's plan is `data/plan.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from bothways.batch import PackedBatch, cut_to_budget
from bothways.data.encoded import Encoded, KeepWhole, pack_encoded
from bothways.data.plan import _generator
from bothways.errors import UserError


class RowPlan:
    """Batches of encoded rows: each epoch visits every example once, in an order drawn for that epoch.

    An example is one sequence (a text, a window of a long one), or all sequences of a row where these must stay
    together (the choices of a question). A step holds `batch_size` examples, or, with `tokens_per_step`, as many as fit
    it; one that must stay whole is not cut into micro-batches.
    """

    def __init__(
        self,
        encoded: Sequence[Encoded],
        collate: Callable[[Sequence[Encoded]], dict[str, np.ndarray]],
        *,
        keep_whole: KeepWhole = "sequence",
        batch_size: int,
        tokens_per_step: int | None,
        seed: int,
        identity: dict[str, Any],
    ) -> None:
        if batch_size < 1:
            raise UserError(f"--batch-size {batch_size}: expected at least 1")
        if tokens_per_step is not None and tokens_per_step < 1:
            raise UserError(f"--tokens-per-step {tokens_per_step}: expected at least 1")
        self._encoded, self._collate, self._whole_steps = encoded, collate, keep_whole == "step"
        self._lengths = np.array([len(one.input_ids) for one in encoded], dtype=np.int64)
        rows = np.arange(len(encoded)) if keep_whole == "sequence" else np.array([one.row for one in encoded])
        self._examples = np.split(np.arange(len(encoded)), np.flatnonzero(np.diff(rows)) + 1)
        self._tokens = np.array([self._lengths[example].sum() for example in self._examples])
        self.batch_size, self.tokens_per_step, self.seed = batch_size, tokens_per_step, seed
        self.identity = {**identity, "batch_size": batch_size, "tokens_per_step": tokens_per_step, "seed": seed}
        self._epoch_steps = lru_cache(maxsize=2)(self._steps_of)
        self._begins = [0]  # the first step of each epoch, as far as they are known

    def steps(self, epochs: int) -> int:
        """Optimizer steps in so many epochs."""
        return sum(len(self._epoch_steps(epoch)) for epoch in range(epochs))

    def micro_batches(self, step: int, rank: int, world_size: int, token_budget: int) -> list[PackedBatch]:
        """This rank's share of the step, longest examples first, cut so that each batch fits the token budget."""
        while step >= self._begins[-1]:
            self._begins.append(self._begins[-1] + len(self._epoch_steps(len(self._begins) - 1)))
        epoch = int(np.searchsorted(self._begins, step, side="right")) - 1
        examples = self._epoch_steps(epoch)[step - self._begins[epoch]]
        examples = examples[np.argsort(-self._tokens[examples], kind="stable")][rank::world_size]
        budget = 1 << 62 if self._whole_steps else token_budget
        return [self._pack(examples[part]) for part in cut_to_budget(self._tokens[examples].tolist(), budget)]

    def cursor_json(self, step: int) -> dict[str, int]:
        return {"step": step}

    def restore(self, cursor: dict[str, int]) -> None:
        """Nothing to do: every step can be made at once."""

    def _steps_of(self, epoch: int) -> list[np.ndarray]:
        order = _generator(self.seed, epoch, 0).permutation(len(self._examples))
        if self.tokens_per_step is None:
            cuts = [slice(start, start + self.batch_size) for start in range(0, len(order), self.batch_size)]
        else:
            cuts = list(cut_to_budget(self._tokens[order].tolist(), self.tokens_per_step))
        return [order[cut] for cut in cuts]

    def _pack(self, examples: np.ndarray) -> PackedBatch:
        sequences = np.concatenate([self._examples[example] for example in examples])
        sequences = sequences[np.argsort(-self._lengths[sequences], kind="stable")]
        return pack_encoded([self._encoded[index] for index in sequences], self._collate)
