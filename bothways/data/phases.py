"""Phases: one plan after another in a single run, as BERT is pretrained at 128 tokens first and then at 512.

Each phase is a plan of its own with its own seed, so the k-th batch stays a pure function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bothways.batch import PackedBatch
from bothways.data.plan import PretrainingPlan
from bothways.errors import UserError, option


@dataclass(frozen=True)
class Phase:
    """Steps of a run with a sequence length of their own.

    sequence_length: tokens an example has at most. first, end: the phase covers the steps `first` to `end - 1`.
    tokens_per_step: None where it is the run's.
    """

    sequence_length: int
    first: int
    end: int
    tokens_per_step: int | None = None


def parse_phases(phases: Sequence[str], steps: int) -> list[Phase]:
    """Phases written as `LENGTH:SHARE` or `LENGTH:SHARE:TOKENS_PER_STEP`, in order; the shares of the steps sum to 1.

    Raises UserError for anything else.
    """
    parsed, before, first = [], 0.0, 0
    for phase in phases:
        try:
            length, share, *tokens = phase.split(":")
            before += float(share)
            end = round(before * steps)
            parsed.append(Phase(int(length), first, end, *map(int, tokens)))
            if min(int(length), *map(int, tokens), 8) < 8 or not 0 < float(share) <= 1:
                raise ValueError(phase)
        except (ValueError, TypeError, OverflowError):
            raise UserError(
                f"{option('phases', phase)}: expected LENGTH:SHARE or LENGTH:SHARE:TOKENS_PER_STEP, as in 128:0.9 "
                "512:0.1, lengths and tokens from 8, shares of the steps above 0"
            ) from None
        first = end
    if abs(before - 1) > 1e-6:
        raise UserError(f"{option('phases', phases)}: expected shares that sum to 1, found {before:g}")
    if any(phase.end <= phase.first for phase in parsed):
        enough = math.ceil(1 / min(float(phase.split(":")[1]) for phase in phases))
        raise UserError(
            f"{option('steps', steps)}: too few for the phases {' '.join(phases)}, each of which needs one; give "
            f"{enough:,} or more, or other {option('phases')}"
        )
    return parsed


class PhasedPlan:
    """Plans one after the other, each for the steps of its phase, as if they were one plan."""

    def __init__(self, phases: Sequence[Phase], plans: Sequence[PretrainingPlan]) -> None:
        self._phases, self._plans = phases, plans
        first = plans[0].identity
        self.identity: dict[str, Any] = {name: [plan.identity[name] for plan in plans] for name in first}
        self.identity |= {name: first[name] for name in ("store", "tokenizer", "seed")}
        self.identity["phases"] = [phase.end for phase in phases]
        self.documents = plans[0].documents

    def micro_batches(self, step: int, rank: int, world_size: int, token_budget: int) -> list[PackedBatch]:
        """The micro-batches that the plan of the step's phase makes (`PretrainingPlan.micro_batches`)."""
        number = self._phase(step)
        return self._plans[number].micro_batches(step - self._phases[number].first, rank, world_size, token_budget)

    def cursor_json(self, step: int) -> dict[str, int]:
        """Where the step begins, as a checkpoint keeps it: the number of its phase and the cursor in that."""
        number = self._phase(step)
        return {"phase": number, **self._plans[number].cursor_json(step - self._phases[number].first)}

    def restore(self, cursor: dict[str, int]) -> None:
        """Make a cursor from an earlier process known."""
        in_phase = dict(cursor)
        self._plans[in_phase.pop("phase")].restore(in_phase)

    def _phase(self, step: int) -> int:
        """The number of a step's phase; the step behind the last one, where a finished run stands, is the last's."""
        return next((n for n, phase in enumerate(self._phases) if step < phase.end), len(self._phases) - 1)
