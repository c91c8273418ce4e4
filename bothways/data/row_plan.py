"""The plan of labelled rows: the k-th batch as a pure function of (rows, seed, k).

Rows fit in memory, so the plan needs no cursor; a token store's plan is `data/plan.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bothways.batch import PackedBatch
from bothways.counter_random import generator
from bothways.data.encoded import Encoded, KeepWhole, pack_encoded
from bothways.option_checks import require_at_least
from bothways.token_budget import cut_to_budget

OF_STEP, STEP_SEQUENCES = "step:", "step sequences"  # targets of a step that ranks share and that must stay whole


@dataclass(frozen=True)
class RowPlanOptions:
    """How many rows a step has.

    batch_size: examples of a step, from 1. tokens_per_step: a step has as many examples as fit these tokens instead;
    None: batch_size counts. seed: the order of the rows in each epoch depends on it.
    keep_whole: what is never cut: a sequence, the sequences of a row, or the whole step, whose loss compares its rows.
    Raises UserError for numbers below 1.
    """

    batch_size: int
    tokens_per_step: int | None = None
    seed: int = 0
    keep_whole: KeepWhole = "sequence"

    def __post_init__(self) -> None:
        require_at_least(1, batch_size=self.batch_size, tokens_per_step=self.tokens_per_step)


class RowPlan:
    """Batches of encoded rows: each epoch visits every example once, in an order drawn for that epoch.

    An example is one sequence (a text, a window of a long one), or all sequences of a row where these must stay
    together (the choices of a question).
    """

    def __init__(
        self,
        encoded: Sequence[Encoded],
        collate: Callable[[Sequence[Encoded]], dict[str, np.ndarray]],
        options: RowPlanOptions,
        identity: dict[str, Any],
    ) -> None:
        """collate: makes a batch's targets of its sequences. identity: what a resumed run must share, by name."""
        self._encoded, self._collate, self._options = encoded, collate, options
        self._lengths = np.array([len(sequence.input_ids) for sequence in encoded], dtype=np.int64)
        by_sequence = options.keep_whole == "sequence"
        rows = np.arange(len(encoded)) if by_sequence else np.array([sequence.row for sequence in encoded])
        self._examples = np.split(np.arange(len(encoded)), np.flatnonzero(np.diff(rows)) + 1)
        self._tokens = np.array([self._lengths[example].sum() for example in self._examples])
        self.identity = {
            **identity,
            "batch_size": options.batch_size,
            "tokens_per_step": options.tokens_per_step,
            "seed": options.seed,
        }
        self._begins = [0]  # the first step of each epoch, as far as they are known
        self._epoch: tuple[int, list[np.ndarray]] = (-1, [])  # the epoch that was asked for last, and its steps

    def steps(self, epochs: int) -> int:
        """The number of optimizer steps in the first `epochs` epochs."""
        return sum(len(self._steps_of(epoch)) for epoch in range(epochs))

    def micro_batches(self, step: int, rank: int, world_size: int, token_budget: int) -> list[PackedBatch]:
        """This rank's share of the step, longest examples first, cut so that each batch fits the token budget; nothing
        where the step has fewer examples than there are ranks, and none is left for this one.

        A step that must stay whole is not cut, whatever the budget. Where ranks share it, a batch has the targets of
        all its sequences besides, rank after rank, by names that begin with `OF_STEP`, and as `STEP_SEQUENCES` how many
        sequences each rank has, int64 `[world_size]`.
        """
        while step >= self._begins[-1]:
            self._begins.append(self._begins[-1] + len(self._steps_of(len(self._begins) - 1)))
        epoch = int(np.searchsorted(self._begins, step, side="right")) - 1
        examples = self._steps_of(epoch)[step - self._begins[epoch]]
        examples = examples[np.argsort(-self._tokens[examples], kind="stable")]
        own = examples[rank::world_size]
        if self._options.keep_whole != "step":
            return [self._pack(own[cut]) for cut in cut_to_budget(self._tokens[own].tolist(), token_budget)]
        return [self._pack(own, self._targets_of_step(examples, world_size))] if len(own) else []

    def cursor_json(self, step: int) -> dict[str, int]:
        """Where the step begins, as a checkpoint keeps it: its number."""
        return {"step": step}

    def restore(self, cursor: dict[str, int]) -> None:
        """Nothing to do: every step can be made at once."""

    def _steps_of(self, epoch: int) -> list[np.ndarray]:
        """The examples of each step of an epoch."""
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._cut_epoch(epoch))
        return self._epoch[1]

    def _cut_epoch(self, epoch: int) -> list[np.ndarray]:
        order = generator(self._options.seed, epoch, 0).permutation(len(self._examples))
        size, tokens = self._options.batch_size, self._options.tokens_per_step
        if tokens is None:
            cuts = [slice(start, start + size) for start in range(0, len(order), size)]
        else:
            cuts = list(cut_to_budget(self._tokens[order].tolist(), tokens))
        return [order[cut] for cut in cuts]

    def _targets_of_step(self, examples: np.ndarray, world_size: int) -> dict[str, np.ndarray]:
        if world_size == 1:
            return {}
        by_rank = [self._sequences(examples[rank::world_size]) for rank in range(world_size)]
        targets = self._collate([sequence for share in by_rank for sequence in share])
        of_step = {f"{OF_STEP}{name}": target for name, target in targets.items()}
        return {**of_step, STEP_SEQUENCES: np.array([len(share) for share in by_rank])}

    def _pack(self, examples: np.ndarray, of_step: Mapping[str, np.ndarray] | None = None) -> PackedBatch:
        """of_step: targets that the batch has besides its own."""
        return pack_encoded(
            self._sequences(examples), lambda sequences: {**self._collate(sequences), **(of_step or {})}
        )

    def _sequences(self, examples: np.ndarray) -> list[Encoded]:
        """The sequences of the examples, longest first."""
        if not len(examples):
            return []
        sequences = np.concatenate([self._examples[example] for example in examples])
        return [self._encoded[index] for index in sequences[np.argsort(-self._lengths[sequences], kind="stable")]]
