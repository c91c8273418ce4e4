"""The plan is a pure function of (data, seed, step): order of asking, ranks, cuts and restarts change nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bothways.batch import PackedBatch
from bothways.data.plan import PretrainingPlan
from bothways.data.sentence_pairs import FullSentences, SentencePairs
from bothways.data.spans import SpanOptions
from bothways.data.store import TokenStore
from bothways.errors import UserError
from tests.data.helpers import masked, same


def plan(store: TokenStore, **changes: object) -> PretrainingPlan:
    settings = {"tokens_per_step": 600, "seed": 3, "block_tokens": 5000, **changes}
    return PretrainingPlan(store, masked(store, SentencePairs(SpanOptions(64))), **settings)


def sequences(batches: list[PackedBatch]) -> list[tuple[object, ...]]:
    """Every sequence with its masks and label, sorted, however it was batched."""
    found = []
    for batch in batches:
        labels = torch.full((batch.num_tokens,), -1)
        labels[batch.targets["mlm_index"]] = batch.targets["mlm_labels"]
        parts = zip(
            batch.input_ids.split(batch.lengths.tolist()),
            labels.split(batch.lengths.tolist()),
            batch.targets["next_sentence_label"].tolist(),
            strict=True,
        )
        found += [(tuple(ids.tolist()), tuple(masks.tolist()), label) for ids, masks, label in parts]
    return sorted(found)


def test_any_order_of_asking_gives_the_same_batches(small_store: TokenStore) -> None:
    in_order = plan(small_store)
    assert in_order.num_blocks > 3
    batches = [in_order.batch(step) for step in range(120)]
    assert in_order.cursor(120).epoch >= 1
    for step in (119, 0, 60, 61, 5):
        assert same(plan(small_store).batch(step), batches[step])
    backwards = plan(small_store)
    for step in (90, 30, 89):
        assert same(backwards.batch(step), batches[step])
    assert all(batch.num_tokens <= 600 for batch in batches)
    assert np.mean([batch.num_tokens for batch in batches]) > 500


def test_a_restored_cursor_continues(small_store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    first = plan(small_store)
    cursor = first.cursor_json(77)
    resumed, walking = plan(small_store), plan(small_store)
    resumed.restore(cursor)
    asked: dict[int, list[tuple[int, int]]] = {}
    for later in (resumed, walking):
        keys = asked[id(later)] = []
        monkeypatch.setattr(later, "block", lambda *key, keys=keys, make=later.block: keys.append(key) or make(*key))
        assert same(later.batch(77), first.batch(77))
    at_once, all_before = asked.values()
    assert at_once[0] == (cursor["epoch"], cursor["block"])
    assert len(at_once) <= 2
    assert len(all_before) > 77, "without the cursor every step before is walked through"


def test_ranks_and_cuts_share_out_the_same_examples(small_store: TokenStore) -> None:
    reference = plan(small_store)
    for step in (0, 13, 70):
        whole = sequences([reference.batch(step)])
        assert sequences(reference.micro_batches(step, 0, 1, 100)) == whole
        assert sequences([plan(small_store).batch(step, rank, 3) for rank in range(3)]) == whole
        cut = [batch for rank in range(2) for batch in reference.micro_batches(step, rank, 2, 150)]
        assert sequences(cut) == whole


def test_epochs_visit_everything_and_draw_anew(small_store: TokenStore) -> None:
    maker = masked(small_store, FullSentences(SpanOptions(64)))
    full = PretrainingPlan(small_store, maker, tokens_per_step=600, seed=0, block_tokens=5000)
    step, seen, first_epoch = 0, 0, []
    while full.cursor(step + 1).epoch == 0:
        batch = full.batch(step)
        seen += batch.num_tokens - 2 * batch.num_sequences
        first_epoch.append(batch)
        step += 1
    assert small_store.split("train").tokens - 1200 < seen <= small_store.split("train").tokens
    three, four = plan(small_store, block_tokens=1 << 30), plan(small_store, block_tokens=1 << 30, seed=4)
    assert not same(three.batch(0), four.batch(0))


def test_a_step_crosses_into_the_next_block_and_each_block_is_made_once(
    small_store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    crossing = plan(small_store)
    step = next(step for step in range(100) if crossing.cursor(step + 1).block == 1)
    made: list[tuple[int, int]] = []
    make = PretrainingPlan._make_block
    monkeypatch.setattr(PretrainingPlan, "_make_block", lambda self, *key: made.append(key) or make(self, *key))
    again = plan(small_store)
    batches = [again.batch(number) for number in range(step + 2)]
    assert made == [(0, 0), (0, 1)]
    end = again.cursor(step + 1).example
    assert end > 0
    left = len(again.block(0, 0)) - again.cursor(step).example
    assert left > 0
    assert batches[step].num_sequences == left + end


def test_evaluation_is_the_same_each_time(small_store: TokenStore) -> None:
    held_out = plan(small_store, split="validation")
    once = list(held_out.evaluation_batches(200, 10_000))
    again = list(plan(small_store, split="validation", tokens_per_step=64).evaluation_batches(1000, 10_000))
    assert sequences(once) == sequences(again)
    limited = list(held_out.evaluation_batches(200, 300))
    assert 200 < sum(batch.num_tokens for batch in limited) <= 300


def test_refusals(small_store: TokenStore) -> None:
    with pytest.raises(UserError, match="tokens_per_step=32 is less than one sequence"):
        plan(small_store, tokens_per_step=32)
