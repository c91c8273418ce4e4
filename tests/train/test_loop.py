"""The loop: resume is exact, micro-batches change nothing, bad states are refused, the disk may fill up."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from transformers import get_linear_schedule_with_warmup, get_wsd_schedule

from bothways.batch import PackedBatch
from bothways.checkpoint.hugging_face import load_checkpoint
from bothways.data.plan import PretrainingPlan
from bothways.data.prepare import PrepareOptions, prepare
from bothways.data.store import TokenStore
from bothways.errors import UserError
from bothways.hardware import choose_device
from bothways.model.config import SIZES
from bothways.native import loading as native
from bothways.progress import Progress
from bothways.tasks.pretraining import BertObjective
from bothways.train import run as running
from bothways.train.flops import training_flops
from bothways.train.optimizer import build_optimizer
from bothways.train.options import TrainOptions
from bothways.train.pretrain import pretrain
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.pretrain_plan import make_plan
from bothways.train.run import RunDirectory
from bothways.train.samples import READ_TOKENS
from bothways.train.schedule import learning_rate
from bothways.train.step import Stepper
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_tokenizer

OPTIONS = PretrainOptions(
    size="tiny", steps=12, tokens_per_step=300, sequence_length=32, dropout=0.1, log_every=5, evaluate_every=6,
    checkpoint_every=100, max_position_embeddings=64, precision="float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    folder = tmp_path_factory.mktemp("loop")
    write_corpus(folder / "c.jsonl", documents=100)
    return prepare([str(folder / "c.jsonl")], tiny_tokenizer(), folder / "store")


class StopAfter(Progress):
    """Sends the process a signal after a step."""

    def __init__(self, step: int, number: signal.Signals = signal.SIGTERM) -> None:
        super().__init__("test")
        self.stop_step, self.number = step, number
        self.said: list[str] = []

    def update(self, step: int, *rest: Any) -> None:
        if step == self.stop_step:
            os.kill(os.getpid(), self.number)

    def say(self, line: str) -> None:
        self.said.append(line)


def state_of(run: Path) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """Every byte of the last checkpoint and the model, and the metrics without the clock's values."""
    last = RunDirectory(run).checkpoints()[-1]
    files = {name: (last / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")}
    files["model"] = (run / "model" / "model.safetensors").read_bytes()
    clock = ("seconds", "tokens_per_second", "fraction_of_peak")
    return files, [{k: v for k, v in line.items() if k not in clock} for line in RunDirectory(run).metrics()]


def test_a_stopped_run_resumed_equals_the_uninterrupted_one(store: TokenStore, tmp_path: Path) -> None:
    pretrain(store.directory, tmp_path / "whole", OPTIONS, progress=StopAfter(-1))
    expected = state_of(tmp_path / "whole")
    for stop in (1, 5, 7, 11):
        run = tmp_path / f"stopped{stop}"
        number = signal.SIGINT if stop == 5 else signal.SIGTERM
        first = pretrain(store.directory, run, OPTIONS, progress=StopAfter(stop, number))
        assert (first.steps, first.interrupted) == (stop, number)
        assert not (run / "model").exists()
        resumed = StopAfter(-1)
        assert pretrain(store.directory, run, OPTIONS, progress=resumed).interrupted is None
        assert f"resuming at step {stop} of 12" in resumed.said
        assert state_of(run) == expected
    twice = tmp_path / "twice"
    for stop in (3, 8, -1):
        pretrain(store.directory, twice, OPTIONS, progress=StopAfter(stop))
    assert state_of(twice) == expected


def test_a_finished_run_asked_again_does_nothing(store: TokenStore, tmp_path: Path) -> None:
    pretrain(store.directory, tmp_path / "run", OPTIONS, progress=StopAfter(-1))
    before = state_of(tmp_path / "run")
    assert pretrain(store.directory, tmp_path / "run", OPTIONS, progress=StopAfter(-1)).steps == 12
    assert state_of(tmp_path / "run") == before


def test_a_damaged_checkpoint_falls_back_to_the_one_before(store: TokenStore, tmp_path: Path) -> None:
    options = PretrainOptions(**{**vars(OPTIONS), "checkpoint_every": 4})
    pretrain(store.directory, tmp_path / "whole", options, progress=StopAfter(-1))
    pretrain(store.directory, tmp_path / "run", options, progress=StopAfter(9))
    torn = RunDirectory(tmp_path / "run").checkpoints()[-1] / "optimizer.safetensors"
    torn.write_bytes(torn.read_bytes()[:1000])
    resumed = StopAfter(-1)
    pretrain(store.directory, tmp_path / "run", options, progress=resumed)
    assert any("passed over a damaged checkpoint" in line for line in resumed.said)
    assert "resuming at step 8 of 12" in resumed.said
    assert state_of(tmp_path / "run") == state_of(tmp_path / "whole")


def test_cutting_a_step_changes_only_the_rounding(store: TokenStore, tmp_path: Path) -> None:
    still = {**vars(OPTIONS), "dropout": 0.0, "evaluate_every": 0, "log_every": 1}
    for name, budget in (("one", 16384), ("many", 64)):
        pretrain(store.directory, tmp_path / name, PretrainOptions(**{**still, "micro_batch_tokens": budget}))
    one, many = (RunDirectory(tmp_path / name).metrics() for name in ("one", "many"))
    for a, b in zip(one, many, strict=True):
        for name in ("mlm_loss", "nsp_loss", "mlm_accuracy", "grad_norm"):
            if name in a:
                assert a[name] == pytest.approx(b[name], rel=2e-4)


def test_resuming_something_else_is_refused_naming_both(store: TokenStore, tmp_path: Path) -> None:
    pretrain(store.directory, tmp_path / "run", OPTIONS, progress=StopAfter(4))
    for change, message in (
        ({"seed": 1}, "seed was 0, now 1"),
        ({"mask_rate": 0.3}, r"mask_rate was 0\.15, now 0\.3"),
        ({"objective": "mlm"}, "objective was bert, now mlm"),
        ({"size": "mini"}, "size was tiny, now mini"),
        ({"dropout": 0.2}, r"dropout was 0\.1, now 0\.2"),
        ({"weight_decay": 0.5, "log_every": 1}, r"weight_decay was 0\.01, now 0\.5"),
        (
            {"whole_word_masking": True, "lr": 0.1},
            r"lr was not given, now 0\.1; whole_word_masking was not given then",
        ),
    ):
        with pytest.raises(
            UserError, match=f"run holds a run that was made otherwise: {message}; overwrite=True begins anew"
        ):
            pretrain(store.directory, tmp_path / "run", PretrainOptions(**{**vars(OPTIONS), **change}))
    write_corpus(tmp_path / "d.jsonl", documents=100, seed=9)
    other = prepare([str(tmp_path / "d.jsonl")], tiny_tokenizer(), tmp_path / "other")
    with pytest.raises(UserError, match=r"store was \S*store, now \S*other"):
        pretrain(other.directory, tmp_path / "run", OPTIONS)
    (tmp_path / "run" / "run.json").unlink()  # as an earlier Bothways left a run of fine-tuning
    with pytest.raises(UserError, match="otherwise: the store has other text in it; overwrite=True"):
        pretrain(other.directory, tmp_path / "run", OPTIONS)


def test_a_full_disk_leaves_the_last_checkpoint_usable(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = PretrainOptions(**{**vars(OPTIONS), "checkpoint_every": 4})
    saved = 0
    original = running.save_file

    def save_until_full(tensors: Any, path: Path) -> None:
        nonlocal saved
        saved += 1
        if saved > 3:  # in the middle of the second checkpoint
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(running, "save_file", save_until_full)
        with pytest.raises(UserError, match=r"step-00000008: the disk is full .*what was complete before is intact"):
            pretrain(store.directory, tmp_path / "run", options, progress=StopAfter(-1))
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000004"]
    resumed = StopAfter(-1)
    pretrain(store.directory, tmp_path / "run", options, progress=resumed)
    assert "resuming at step 4 of 12" in resumed.said


def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_spoilt(store: TokenStore, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"step \d+: the gradient is not finite"):
        pretrain(store.directory, tmp_path / "run", PretrainOptions(**{**vars(OPTIONS), "lr": 1e30, "clip": 1e30}))


@pytest.mark.parametrize("decay", [0.3, 0.8, 1.0])
def test_a_stable_phase_is_transformers_wsd(decay: float) -> None:
    options = TrainOptions(steps=50, lr=0.3, warmup=0.2, decay=decay)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    falling = min(40, int(decay * 50))
    schedule = get_wsd_schedule(
        optimizer, 10, falling, num_stable_steps=40 - falling, warmup_type="linear", decay_type="linear"
    )
    for step in range(50):
        assert learning_rate(step, options) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        schedule.step()


def test_schedule_and_groups_are_berts(store: TokenStore) -> None:
    options = TrainOptions(steps=50, lr=0.3, warmup=0.2, weight_decay=0.7)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    schedule = get_linear_schedule_with_warmup(optimizer, 10, 50)
    for step in range(50):
        assert learning_rate(step, options) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        schedule.step()
    checkpoint = load_model(store)
    decayed, plain = build_optimizer(checkpoint, options).param_groups
    names = {id(parameter): name for name, parameter in checkpoint.named_parameters()}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.7, 0.0)
    assert all(names[id(p)].endswith("weight") and "norm" not in names[id(p)] for p in decayed["params"])
    assert all(names[id(p)].endswith("bias") or "norm" in names[id(p)] for p in plain["params"])


def load_model(store: TokenStore) -> torch.nn.Module:
    from bothways.checkpoint.hugging_face import new_model
    from bothways.model.families import head_builder
    from tests.helpers import tiny_config

    return new_model(tiny_config(), head_builder("pretraining"), 0)


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


def test_without_compiled_code_a_run_says_so_and_gets_on(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "library", lambda: None)
    monkeypatch.setattr(native, "_variants_for_cpu", lambda: ("avx2",))
    progress = StopAfter(-1)
    options = PretrainOptions(**{**vars(OPTIONS), "steps": 2, "dropout": 0.1})
    assert pretrain(store.directory, tmp_path / "run", options, progress=progress).steps == 2
    assert any("after an install where there is a C++ compiler" in line for line in progress.said)


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


def test_continuing_from_a_model_of_another_vocabulary_is_refused(
    store: TokenStore, tmp_path: Path, minilm: Path
) -> None:
    with pytest.raises(UserError, match=rf"was prepared with the vocabulary {store.tokenizer_fingerprint}, .* has"):
        pretrain(store.directory, tmp_path / "r", PretrainOptions(**{**vars(OPTIONS), "model": str(minilm)}))


@pytest.mark.parametrize("name", ["clip", "lr"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_rates_that_train_nothing_are_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"{name}="):
        TrainOptions(**{"steps": 1, "lr": 1.0, name: value})


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


def test_garbled_state_and_metrics_are_passed_over(store: TokenStore, tmp_path: Path) -> None:
    options = PretrainOptions(**{**vars(OPTIONS), "checkpoint_every": 4})
    pretrain(store.directory, tmp_path / "run", options, progress=StopAfter(9))
    run = RunDirectory(tmp_path / "run")
    (run.checkpoints()[-1] / "state.json").write_text("{}")
    with run.metrics_path.open("a") as file:
        file.write('{"step": 9, "lo}\n')
    resumed = StopAfter(-1)
    pretrain(store.directory, tmp_path / "run", options, progress=resumed)
    assert "resuming at step 8 of 12" in resumed.said


def test_a_compiled_run_learns_what_a_plain_one_learns(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler, and there is none")
    monkeypatch.setitem(SIZES, "tiny", (1, 32, 64, 2))  # code is written and compiled for every layer
    losses = []
    for choice in ("on", "off"):
        pretrain(store.directory, tmp_path / choice, replace(OPTIONS, compile=choice, dropout=0.0, steps=6))
        losses.append([line["loss"] for line in RunDirectory(tmp_path / choice).metrics() if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_muon_trains_the_matrices_and_resumes_exactly(store: TokenStore, tmp_path: Path) -> None:
    options = replace(OPTIONS, optimizer="muon", steps=6)
    pretrain(store.directory, tmp_path / "whole", options)
    pretrain(store.directory, tmp_path / "stopped", options, progress=StopAfter(3))
    pretrain(store.directory, tmp_path / "stopped", options)
    assert state_of(tmp_path / "stopped") == state_of(tmp_path / "whole")
    optimizer = build_optimizer(load_model(store), TrainOptions(steps=1, lr=1e-3, optimizer="muon"))
    muon, *_ = optimizer.param_groups
    assert len(muon["params"]) == 2 * 4  # two layers: qkv, output, intermediate, output
    with pytest.raises(UserError, match="optimizer was muon, now adamw"):
        pretrain(store.directory, tmp_path / "whole", replace(options, optimizer="adamw"))


def test_out_of_memory_names_the_budget_that_halves_it(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Stepper, *rest: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Stepper, "_forward_and_backward", full)
    with pytest.raises(UserError, match=r"with [\d,]+ tokens in one forward pass; micro_batch_tokens=\d+ halves that"):
        pretrain(store.directory, tmp_path / "run", OPTIONS)


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


def test_flops_are_those_that_torch_counts(store: TokenStore) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from bothways.model.attention_mask import AttentionMask
    from bothways.model.kernels.eager import attend_eager

    def attend(q: Tensor, k: Tensor, v: Tensor, batch: PackedBatch, mask: AttentionMask, dropout: float) -> Tensor:
        """The counter sees the matrix products of the written-out attention only."""
        return attend_eager(q, k, v, batch.lengths, mask)[0]

    model = load_model(store)
    batch = make_plan(store, replace(OPTIONS, sequence_length=64, tokens_per_step=2000)).batch(0)
    with FlopCounterMode(display=False) as counter:
        hidden_states = model.encoder(batch, model.head.reads(batch), attend)
        sums = BertObjective().sums(model.head(hidden_states, batch), batch.targets)
        (sums["mlm_loss"] + sums["nsp_loss"]).backward()
    hidden, pairs = model.config.hidden_size, batch.num_sequences
    pooler = 3 * 2 * pairs * (hidden**2 + 2 * hidden)
    assert counter.get_total_flops() == training_flops(model, batch) + pooler


def test_held_out_fills_are_the_same_words_each_time(store: TokenStore, tmp_path: Path) -> None:
    pretrain(store.directory, tmp_path / "run", OPTIONS)
    lines = [line["eval_fills"] for line in RunDirectory(tmp_path / "run").metrics() if "eval_fills" in line]
    assert len(lines) == 2
    assert [fill["text"] for fill in lines[0]] == [fill["text"] for fill in lines[1]]
    assert all(0 < fill["probability"] <= 1 and "[MASK]" in fill["text"] for fill in lines[0])


def test_a_batch_that_is_not_a_number_spoils_nothing(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(OPTIONS, checkpoint_every=5, evaluate_every=0)
    pretrain(store.directory, tmp_path / "whole", options)
    whole, seen = BertObjective.sums, []

    def eighth_is_nan(self: BertObjective, *batch: Any) -> dict[str, torch.Tensor]:
        seen.append(batch)
        return {name: value * (float("nan") if len(seen) == 8 else 1) for name, value in whole(self, *batch).items()}

    with monkeypatch.context() as patch:
        patch.setattr(BertObjective, "sums", eighth_is_nan)
        with pytest.raises(UserError, match=r"step 8: the gradient is not finite .*batch=8"):
            pretrain(store.directory, tmp_path / "stopped", options)
    assert [path.name for path in RunDirectory(tmp_path / "stopped").checkpoints()] == ["step-00000005"]
    pretrain(store.directory, tmp_path / "stopped", options)
    assert state_of(tmp_path / "stopped") == state_of(tmp_path / "whole")


def test_a_sharded_write_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise CheckpointException("save", {1: (OSError(errno.ENOSPC, "No space left on device"), None)})

    monkeypatch.setattr(running.dcp, "save", full)
    with pytest.raises(UserError, match="No space left on device; the checkpoint before is intact"):
        running._save_shards(tmp_path / "step-00000005", {})
