"""What a pretraining leaves behind, measures and refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bothways.batch import PackedBatch
from bothways.checkpoint.hugging_face import load_checkpoint
from bothways.data.plan import PretrainingPlan
from bothways.data.prepare import PrepareOptions, prepare
from bothways.data.store import TokenStore
from bothways.errors import UserError
from bothways.hardware import choose_device
from bothways.model.config import SIZES
from bothways.train.options import TrainOptions
from bothways.train.pretrain import pretrain
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.pretrain_plan import make_plan
from bothways.train.run import RunDirectory
from bothways.train.samples import READ_TOKENS
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_tokenizer
from tests.train.running import OPTIONS, StopAfter, state_of


def test_what_a_run_leaves_behind(store: TokenStore, tmp_path: Path) -> None:
    pretrain(store.directory, tmp_path / "run", OPTIONS, progress=StopAfter(-1))
    lines = RunDirectory(tmp_path / "run").metrics()
    logged = [line for line in lines if "loss" in line]
    assert [line["step"] for line in logged] == [5, 10, 12]
    assert {"tokens", "seconds", "tokens_per_second", "mlm_loss", "nsp_loss", "lr", "grad_norm"} <= set(logged[0])
    assert logged[0]["loss"] == pytest.approx(logged[0]["mlm_loss"] + logged[0]["nsp_loss"])
    evaluated = [line for line in lines if "eval_mlm_loss" in line]
    assert [line["step"] for line in evaluated] == [6, 12]
    assert {"eval_mlm_accuracy", "eval_nsp_accuracy", "eval_nsp_loss"} <= set(evaluated[0])
    checkpoint = load_checkpoint(tmp_path / "run")
    told = checkpoint.metadata["provenance"]
    assert told["store"] == store.fingerprint
    assert told["documents"] + told["held_out_documents"] == store.manifest["documents"]
    assert told["tokens"] + told["held_out_tokens"] == store.manifest["tokens"]
    read = OPTIONS.steps * OPTIONS.tokens_per_step  # with [CLS] and [SEP], which are many where sequences are short
    assert 0.5 < told["epochs"] / (read / told["tokens"]) < 1
    assert told["options"]["lr"] == OPTIONS.lr or OPTIONS.lr is None
    assert told["options"]["evaluate_every"] == 6
    assert None not in told["options"].values()
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["architectures"] == [
        "BertForPreTraining"
    ]


def test_one_document_trains_on_true_pairs_and_says_so(tmp_path: Path) -> None:
    write_corpus(tmp_path / "c.jsonl", documents=1)
    one = prepare([str(tmp_path / "c.jsonl")], tiny_tokenizer(), tmp_path / "store")
    progress = StopAfter(-1)
    pretrain(one.directory, tmp_path / "run", PretrainOptions(**{**vars(OPTIONS), "steps": 2}), progress=progress)
    assert any("one document only" in line for line in progress.said)
    assert any("no held-out documents" in line for line in progress.said)


def test_refusals(store: TokenStore, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sequence_length=128 is above what the model reads"):
        pretrain(
            store.directory,
            tmp_path / "r",
            PretrainOptions(**{**vars(OPTIONS), "sequence_length": 128, "tokens_per_step": 500}),
        )
    with pytest.raises(UserError, match=r"size='mino': expected one of tiny, .*, did you mean 'mini'"):
        pretrain(store.directory, tmp_path / "r", PretrainOptions(**{**vars(OPTIONS), "size": "mino"}))
    with pytest.raises(UserError, match="device='tpu'"):
        choose_device("tpu")
    with pytest.raises(UserError, match="steps=0"):
        TrainOptions(steps=0, lr=1.0)


@pytest.mark.parametrize(
    ("objective", "options", "able"),
    [
        ("mlm", {"short": 0.5}, "accepted with bert, order$"),
        ("roberta", {"short": 0.0}, "accepted with bert, order$"),
        ("electra", {"short": 0.5}, "accepted with bert, order$"),
        ("causal", {"short": 0.5}, "accepted with bert, order$"),
        ("causal", {"mask_rate": 0.3}, "accepted with bert, order, mlm, roberta, electra$"),
        ("causal", {"mask_rate_end": 0.3}, "accepted with bert, order, mlm, roberta, electra$"),
        ("electra", {"mask_share": 1.0}, "accepted with bert, order, mlm, roberta$"),
        ("causal", {"mask_share": 1.0}, "accepted with bert, order, mlm, roberta$"),
        ("causal", {"mask_repeats": True}, "accepted with bert, order, mlm, roberta, electra$"),
        ("causal", {"whole_word_masking": True}, "accepted with bert, order, mlm, roberta, electra$"),
    ],
)
def test_options_that_an_objective_has_no_use_for_are_refused(
    objective: Any, options: dict[str, Any], able: str, store: TokenStore, tmp_path: Path
) -> None:
    ((name, value),) = options.items()
    with pytest.raises(UserError, match=f"^{name}={value}: objective='{objective}' has no use for it; {able}"):
        pretrain(store.directory, tmp_path / "run", replace(OPTIONS, objective=objective, **options), quiet=True)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(("mask_share", "shares"), [(0.8, "mask=0.8, random=0.1"), (1.0, "mask=1.0, random=0.0")])
def test_what_is_hidden_and_not_masked_is_half_random(mask_share: float, shares: str, store: TokenStore) -> None:
    plan = make_plan(store, replace(OPTIONS, mask_share=mask_share))
    assert isinstance(plan, PretrainingPlan)
    assert shares in "".join(plan.maker.identity)


def test_continuing_from_a_model_of_another_vocabulary_is_refused(
    store: TokenStore, tmp_path: Path, minilm: Path
) -> None:
    with pytest.raises(UserError, match=rf"was prepared with the vocabulary {store.tokenizer_fingerprint}, .* has"):
        pretrain(store.directory, tmp_path / "r", PretrainOptions(**{**vars(OPTIONS), "model": str(minilm)}))


def test_evaluations_before_the_last_read_the_beginning_of_what_the_last_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path / "c.jsonl", documents=800)
    store = prepare([str(tmp_path / "c.jsonl")], tiny_tokenizer(), tmp_path / "store", PrepareOptions(validation=0.4))
    read: list[int] = []
    original = PretrainingPlan.evaluation_share

    def counting(
        plan: PretrainingPlan, budget: int, most: int, rank: int, world_size: int
    ) -> Iterator[tuple[PackedBatch, bool]]:
        batches = list(original(plan, budget, most, rank, world_size))
        if most != READ_TOKENS:  # the samples' own
            read.append(sum(len(batch.input_ids) for batch, _ in batches))
        yield from batches

    monkeypatch.setitem(SIZES, "tiny", (2, 32, 64, 2))  # the tokens are what is asked for
    # 48,000 tokens between two evaluations, of which 4,800 are a tenth
    options = replace(OPTIONS, tokens_per_step=8000)
    with monkeypatch.context() as patch:
        patch.setattr(PretrainingPlan, "evaluation_share", counting)
        pretrain(store.directory, tmp_path / "whole", options, progress=StopAfter(-1))
    assert len(read) == 2
    assert 4800 - 32 <= read[0] <= 4800
    assert read[1] > 10_000
    for stop in (3, 7):  # before and after the evaluation in the middle
        pretrain(store.directory, tmp_path / f"{stop}", options, progress=StopAfter(stop))
        pretrain(store.directory, tmp_path / f"{stop}", options, progress=StopAfter(-1))
        assert state_of(tmp_path / f"{stop}") == state_of(tmp_path / "whole")


def test_one_held_out_word_is_no_validation(tmp_path: Path) -> None:
    write_corpus(tmp_path / "c.jsonl", documents=9)
    with (tmp_path / "c.jsonl").open("a") as file:
        file.write('{"text": "red"}\n')
    small = prepare([str(tmp_path / "c.jsonl")], tiny_tokenizer(), tmp_path / "store")
    assert small.split("validation").documents == 1
    progress = StopAfter(-1)
    pretrain(small.directory, tmp_path / "run", PretrainOptions(**{**vars(OPTIONS), "steps": 2}), progress=progress)
    assert any("no held-out documents to speak of" in line for line in progress.said)


def test_what_is_not_a_run_is_not_trained_over(store: TokenStore, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a model's or a store's directory \(manifest\.json\)"):
        pretrain(store.directory, store.directory, OPTIONS)
    (tmp_path / "project" / "model").mkdir(parents=True)
    with pytest.raises(UserError, match="holds a model but no checkpoint"):
        pretrain(store.directory, tmp_path / "project", OPTIONS, progress=StopAfter(-1))


def test_traces_and_tensorboard_are_written_when_asked_for(store: TokenStore, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    pretrain(store.directory, tmp_path / "run", replace(OPTIONS, profile=True, tensorboard=True))
    trace = json.loads((tmp_path / "run" / "trace.json").read_text())
    assert any("addmm" in event.get("name", "") for event in trace["traceEvents"])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("mlm_loss")] == [5, 10, 12]
    assert board.Scalars("eval_mlm_loss")[-1].step == 12


def test_held_out_fills_are_the_same_words_each_time(store: TokenStore, tmp_path: Path) -> None:
    pretrain(store.directory, tmp_path / "run", OPTIONS)
    lines = [line["eval_fills"] for line in RunDirectory(tmp_path / "run").metrics() if "eval_fills" in line]
    assert len(lines) == 2
    assert [fill["text"] for fill in lines[0]] == [fill["text"] for fill in lines[1]]
    assert all(0 < fill["probability"] <= 1 and "[MASK]" in fill["text"] for fill in lines[0])
