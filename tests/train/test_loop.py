"""The loop: resume is exact, micro-batches change nothing, bad states are refused, the disk may fill up."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.api import CheckpointException

from bothways import hardware
from bothways.data.prepare import prepare
from bothways.data.store import TokenStore
from bothways.errors import UserError
from bothways.model.config import SIZES
from bothways.native import loading as native
from bothways.tasks.pretraining import BertObjective
from bothways.train import checkpoint_shards
from bothways.train import run as running
from bothways.train.distributed import World
from bothways.train.pretrain import pretrain
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.run import RunDirectory
from bothways.train.step import Stepper
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_tokenizer
from tests.train.running import OPTIONS, StopAfter, state_of


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


def test_without_compiled_code_a_run_says_so_and_gets_on(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "library", lambda: None)
    monkeypatch.setattr(native, "_variants_for_cpu", lambda: ("avx2",))
    progress = StopAfter(-1)
    options = PretrainOptions(**{**vars(OPTIONS), "steps": 2, "dropout": 0.1})
    assert pretrain(store.directory, tmp_path / "run", options, progress=progress).steps == 2
    assert any("after an install where there is a C++ compiler" in line for line in progress.said)


def test_reading_on_in_the_order_that_was_read_already_is_said(store: TokenStore, tmp_path: Path) -> None:
    short = replace(OPTIONS, steps=2)
    pretrain(store.directory, tmp_path / "run", short, progress=StopAfter(-1))
    said = {}
    for seed in (0, 1):
        progress = StopAfter(-1)
        on = replace(short, model=str(tmp_path / "run"), seed=seed)
        pretrain(store.directory, tmp_path / f"on{seed}", on, progress=progress)
        said[seed] = [line for line in progress.said if "in this order" in line]
    again = "has read the beginning of this text already, in this order; another seed gives another order"
    assert said == {0: [f"{tmp_path / 'run'}: {again}"], 1: []}


def test_a_peak_measured_on_a_busy_machine_is_raised_by_what_a_step_reaches(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bothways.train.loop.measured_peak", lambda device, dtype: 1e-3)
    pretrain(store.directory, tmp_path / "run", replace(OPTIONS, log_every=1), progress=StopAfter(-1))
    shares = [row["fraction_of_peak"] for row in RunDirectory(tmp_path / "run").metrics() if "lr" in row]
    assert max(shares) == shares[0] == 1.0


def test_a_peak_is_of_ten_products_however_slow_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    products, multiply = [], torch.mm
    monkeypatch.setattr(hardware, "PEAK_SECONDS", 0.0)
    monkeypatch.setattr(torch, "mm", lambda a, b, out: products.append(multiply(a, b, out=out)))
    assert hardware.measured_peak.__wrapped__(torch.device("cpu"), torch.float32) > 0
    assert len(products) == hardware.PEAK_PRODUCTS


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
    monkeypatch.setattr("torch._inductor.config.cpp.simdlen", 1)  # code without vectors is compiled in less time
    losses = []
    for choice in ("on", "off"):
        pretrain(store.directory, tmp_path / choice, replace(OPTIONS, compile=choice, dropout=0.0, steps=6))
        losses.append([line["loss"] for line in RunDirectory(tmp_path / choice).metrics() if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_out_of_memory_names_the_budget_that_halves_it(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Stepper, *rest: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Stepper, "_forward_and_backward", full)
    with pytest.raises(UserError, match=r"with [\d,]+ tokens in one forward pass; micro_batch_tokens=\d+ halves that"):
        pretrain(store.directory, tmp_path / "run", OPTIONS)


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

    monkeypatch.setattr(checkpoint_shards.dcp, "save", full)
    with pytest.raises(UserError, match="No space left on device; the checkpoint before is intact"):
        checkpoint_shards.save_shards(tmp_path / "step-00000005", {}, World(), None)
