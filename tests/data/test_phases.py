"""Phases follow one another in a run, and each step stays a pure function of (data, seed, step)."""

from __future__ import annotations

import pytest

from bothways.data.phases import Phase, PhasedPlan, parse_phases
from bothways.data.plan import PretrainingPlan
from bothways.data.sentence_pairs import SentencePairs
from bothways.data.spans import SpanOptions
from bothways.data.store import TokenStore
from bothways.errors import UserError
from bothways.token_budget import UNLIMITED
from tests.data.helpers import masked, same


def phased(store: TokenStore) -> PhasedPlan:
    plans = [
        PretrainingPlan(store, masked(store, SentencePairs(SpanOptions(length))), tokens_per_step=600, seed=seed)
        for seed, length in enumerate((16, 64))
    ]
    return PhasedPlan(parse_phases(["16:0.75", "64:0.25"], 40), plans)


def test_phases_follow_one_another_and_resume_anywhere(small_store: TokenStore) -> None:
    whole = phased(small_store)
    batches = [whole.micro_batches(step, 0, 1, UNLIMITED)[0] for step in range(40)]
    assert max(batch.max_seqlen for batch in batches[:30]) == 16
    assert min(batch.max_seqlen for batch in batches[30:]) > 16
    for step in (0, 17, 29, 30, 31, 39):
        cursor = whole.cursor_json(step)
        resumed = phased(small_store)
        resumed.restore(cursor)
        assert same(resumed.micro_batches(step, 0, 1, UNLIMITED)[0], batches[step])
    assert whole.cursor_json(40)["phase"] == 1  # where a finished run stands


@pytest.mark.parametrize(
    "phases",
    [
        *(["128"], ["128:x"], ["128:0.5"], ["8:0.5", "9:0.6"], ["8:1", "9:0"], ["8:1:x"], ["8:1:2:3"]),
        *(["128:inf"], ["128:nan"], ["512:0.5:0", "8:0.5"], ["4:1"], ["128:-1", "128:2"]),
    ],
)
def test_phases_that_do_not_add_up_are_refused(phases: list[str]) -> None:
    with pytest.raises(UserError, match="phases"):
        parse_phases(phases, 100)
    with pytest.raises(UserError, match=r"^steps=3: too few for the phases 128:0\.9 512:0\.1, .* give 10 or more"):
        parse_phases(["128:0.9", "512:0.1"], 3)
    assert parse_phases(["128:0.9", "512:0.1:4096"], 100) == [Phase(128, 0, 90), Phase(512, 90, 100, 4096)]
