"""The plan is a pure function of (data, seed, step): order of asking, ranks, cuts and restarts change nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bothways.batch import PackedBatch
from bothways.data import store as storing
from bothways.data.encoded import Encoded
from bothways.data.examples import MaskedExamples
from bothways.data.masking import Masker, Masking
from bothways.data.phases import Phase, PhasedPlan, parse_phases
from bothways.data.plan import PretrainingPlan
from bothways.data.prepare import prepare
from bothways.data.row_plan import RowPlan
from bothways.data.sentence_pairs import FullSentences, SentencePairs, SpanOptions
from bothways.data.store import TokenStore
from bothways.errors import UserError
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_tokenizer


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    folder = tmp_path_factory.mktemp("plan")
    write_corpus(folder / "c.jsonl", documents=400)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storing, "CHUNK_TOKENS", 1000)
        return prepare([str(folder / "c.jsonl")], tiny_tokenizer(), folder / "store")


def plan(store: TokenStore, **changes: object) -> PretrainingPlan:
    settings = {"tokens_per_step": 600, "seed": 3, "block_tokens": 5000, **changes}
    masker, words = Masker(Masking(), store.tokenizer()), store.tokenizer()
    return PretrainingPlan(store, MaskedExamples(SentencePairs(SpanOptions(64)), masker, words), **settings)


def same(a: PackedBatch, b: PackedBatch) -> bool:
    tensors = [(a.input_ids, b.input_ids), (a.token_type_ids, b.token_type_ids), (a.cu_seqlens, b.cu_seqlens)]
    return all(torch.equal(x, y) for x, y in [*tensors, *((a.targets[name], b.targets[name]) for name in a.targets)])


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


def test_any_order_of_asking_gives_the_same_batches(store: TokenStore) -> None:
    in_order = plan(store)
    assert in_order.num_blocks > 3
    batches = [in_order.batch(step) for step in range(120)]
    assert in_order.cursor(120).epoch >= 1
    for step in (119, 0, 60, 61, 5):
        assert same(plan(store).batch(step), batches[step])
    backwards = plan(store)
    for step in (90, 30, 89):
        assert same(backwards.batch(step), batches[step])
    assert all(batch.num_tokens <= 600 for batch in batches)
    assert np.mean([batch.num_tokens for batch in batches]) > 500


def test_a_restored_cursor_continues(store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    first = plan(store)
    cursor = first.cursor_json(77)
    resumed, walking = plan(store), plan(store)
    resumed.restore(cursor)
    made: dict[int, list[tuple[int, int]]] = {}
    for one in (resumed, walking):
        read = made[id(one)] = []
        monkeypatch.setattr(one, "block", lambda *key, read=read, make=one.block: read.append(key) or make(*key))
        assert same(one.batch(77), first.batch(77))
    at_once, all_before = made.values()
    assert at_once[0] == (cursor["epoch"], cursor["block"])
    assert len(at_once) <= 2
    assert len(all_before) > 77, "without the cursor every step before is walked through"


def test_ranks_and_cuts_share_out_the_same_examples(store: TokenStore) -> None:
    reference = plan(store)
    for step in (0, 13, 70):
        whole = sequences([reference.batch(step)])
        assert sequences(reference.micro_batches(step, 0, 1, 100)) == whole
        assert sequences([plan(store).batch(step, rank, 3) for rank in range(3)]) == whole
        cut = [batch for rank in range(2) for batch in reference.micro_batches(step, rank, 2, 150)]
        assert sequences(cut) == whole


def test_epochs_visit_everything_and_draw_anew(store: TokenStore) -> None:
    masker, words = Masker(Masking(), store.tokenizer()), store.tokenizer()
    full = PretrainingPlan(
        store,
        MaskedExamples(FullSentences(SpanOptions(64)), masker, words),
        tokens_per_step=600,
        seed=0,
        block_tokens=5000,
    )
    step, seen, first_epoch = 0, 0, []
    while full.cursor(step + 1).epoch == 0:
        batch = full.batch(step)
        seen += batch.num_tokens - 2 * batch.num_sequences
        first_epoch.append(batch)
        step += 1
    assert store.split("train").tokens - 1200 < seen <= store.split("train").tokens
    one, two = plan(store, block_tokens=1 << 30), plan(store, block_tokens=1 << 30, seed=4)
    assert not same(one.batch(0), two.batch(0))


def test_evaluation_is_the_same_each_time(store: TokenStore) -> None:
    held_out = plan(store, split="validation")
    once = list(held_out.evaluation_batches(200, 10_000))
    again = list(plan(store, split="validation", tokens_per_step=64).evaluation_batches(1000, 10_000))
    assert sequences(once) == sequences(again)
    limited = list(held_out.evaluation_batches(200, 300))
    assert 200 < sum(batch.num_tokens for batch in limited) <= 300


def test_refusals(store: TokenStore) -> None:
    with pytest.raises(UserError, match="--tokens-per-step 32 is less than one sequence"):
        plan(store, tokens_per_step=32)


def row_plan(**changes: object) -> RowPlan:
    encoded = [
        Encoded(np.full(n % 7 + 3, n), np.zeros(n % 7 + 3, int), np.zeros((n % 7 + 3, 2), int)) for n in range(25)
    ]
    settings = {"batch_size": 4, "tokens_per_step": None, "seed": 0, "identity": {}, **changes}
    return RowPlan(encoded, lambda rows: {"row": np.array([one.input_ids[0] for one in rows])}, **settings)


@pytest.mark.parametrize("budget", [None, 30])
def test_rows_are_visited_once_an_epoch(budget: int | None) -> None:
    rows = row_plan(tokens_per_step=budget)
    steps = rows.steps(1)
    epochs = []
    for first in (0, steps):
        visited = [rows.micro_batches(step, 0, 1, 20) for step in range(first, rows.steps(2) if first else steps)]
        epochs.append([row for batches in visited for batch in batches for row in batch.targets["row"].tolist()])
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(25))
    assert epochs[0] != epochs[1]
    if budget is None:
        assert steps == 7
    again = row_plan(tokens_per_step=budget).micro_batches(steps + 2, 0, 1, 1 << 30)[0]
    assert again.targets["row"].tolist() == rows.micro_batches(steps + 2, 0, 1, 1 << 30)[0].targets["row"].tolist()


def phased(store: TokenStore) -> PhasedPlan:
    masker, words = Masker(Masking(), store.tokenizer()), store.tokenizer()
    plans = [
        PretrainingPlan(
            store, MaskedExamples(SentencePairs(SpanOptions(length)), masker, words), tokens_per_step=600, seed=seed
        )
        for seed, length in enumerate((16, 64))
    ]
    return PhasedPlan(parse_phases(["16:0.75", "64:0.25"], 40), plans)


def test_phases_follow_one_another_and_resume_anywhere(store: TokenStore) -> None:
    whole = phased(store)
    batches = [whole.micro_batches(step, 0, 1, 1 << 30)[0] for step in range(40)]
    assert max(batch.max_seqlen for batch in batches[:30]) == 16
    assert min(batch.max_seqlen for batch in batches[30:]) > 16
    for step in (0, 17, 29, 30, 31, 39):
        cursor = whole.cursor_json(step)
        resumed = phased(store)
        resumed.restore(cursor)
        assert same(resumed.micro_batches(step, 0, 1, 1 << 30)[0], batches[step])
    assert whole.cursor_json(40)["phase"] == 1  # where a finished run stands


@pytest.mark.parametrize(
    "phases",
    [
        *(["128"], ["128:x"], ["128:0.5"], ["8:0.5", "9:0.6"], ["8:1", "9:0"], ["8:1:x"], ["8:1:2:3"]),
        *(["128:inf"], ["128:nan"], ["512:0.5:0", "8:0.5"], ["4:1"], ["128:-1", "128:2"]),
    ],
)
def test_phases_that_do_not_add_up_are_refused(phases: list[str]) -> None:
    with pytest.raises(UserError, match="--phases"):
        parse_phases(phases, 100)
    assert parse_phases(["128:0.9", "512:0.1:4096"], 100) == [Phase(128, 0, 90), Phase(512, 90, 100, 4096)]
