"""Training on a GPU: a step is the CPU's, compiled or not, whatever cuts it or shares it out; runs stop and go on."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint
from bothways.data.store import TokenStore
from bothways.errors import UserError
from bothways.hardware import choose_device
from bothways.model.families import find_family, head_builder
from bothways.progress import Progress
from bothways.tasks.objectives import OBJECTIVES
from bothways.train.distributed import Replicated, Sharded, World, join_world
from bothways.train.finetune import finetune
from bothways.train.pretrain import pretrain
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.pretrain_plan import build_objective, loop_options, make_plan
from bothways.train.run import RunDirectory
from bothways.train.step import Stepper, StepResult, _Sums
from tests.helpers import tiny_config, tiny_tokenizer

EXACT = PretrainOptions(
    size="tiny", steps=6, tokens_per_step=2000, sequence_length=64, log_every=1, checkpoint_every=100, lr=1e-3,
    max_position_embeddings=64, precision="float32", compile="off", micro_batch_tokens=1000, decay=1.0,
)  # fmt: skip


class StopAfter(Progress):
    """Sends the process a signal after a step."""

    def __init__(self, step: int) -> None:
        super().__init__("test", shown=False)
        self.stop_step = step

    def update(self, step: int, *rest: Any) -> None:
        if step == self.stop_step:
            os.kill(os.getpid(), signal.SIGTERM)


def steps_of(store: TokenStore, options: PretrainOptions, number: int = 3) -> list[StepResult]:
    stepper = stepper_of(store, options)
    return [stepper.step(step) for step in range(number)]


def stepper_of(store: TokenStore, options: PretrainOptions) -> Stepper:
    objective = build_objective(options)
    chosen: dict[str, Any] = {"is_decoder": True} if options.objective == "causal" else {}
    config = find_family(OBJECTIVES[options.objective].family).config.from_size(
        options.size, vocab_size=store.vocab_size, hidden_dropout_prob=options.dropout,
        attention_probs_dropout_prob=options.dropout, **chosen,
    )  # fmt: skip
    model = new_model(config, objective.head, seed=0)
    return Stepper(model, objective, make_plan(store, options), loop_options(options, config))


def on(device: torch.device, **changes: Any) -> PretrainOptions:
    return replace(EXACT, device=str(device), **changes)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_steps_are_the_cpus(objective: str, store: TokenStore, device: torch.device) -> None:
    options = replace(EXACT, objective=objective)
    if objective == "electra":  # what its generator draws is another on each kind of device
        assert all(np.isfinite(result.grad_norm) for result in steps_of(store, replace(options, device=str(device))))
        return
    here = steps_of(store, replace(options, device="cpu"))
    for precision, tolerance in (("float32", 2e-3), ("bfloat16", 3e-2)):
        there = steps_of(store, replace(options, device=str(device), precision=precision))
        for ours, theirs in zip(there, here, strict=True):
            assert ours.counts == theirs.counts
            for name in (name for name in ours.sums if name.endswith("loss")):
                assert ours.sums[name] == pytest.approx(theirs.sums[name], rel=tolerance)
            assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=10 * tolerance)


@pytest.mark.parametrize("changes", [{"dropout": 0.1}, {"optimizer": "muon"}, {"micro_batch_tokens": 64}])
def test_ways_to_train(changes: dict[str, Any], store: TokenStore, device: torch.device) -> None:
    losses = [result.sums["mlm_loss"] for result in steps_of(store, on(device, precision="bfloat16", **changes))]
    again = [result.sums["mlm_loss"] for result in steps_of(store, on(device, precision="bfloat16", **changes))]
    assert losses == pytest.approx(again, rel=1e-3)


def test_a_compiled_run_learns_what_a_plain_one_learns(store: TokenStore, device: torch.device) -> None:
    losses = [
        [result.sums["mlm_loss"] for result in steps_of(store, on(device, precision="bfloat16", compile=choice))]
        for choice in ("on", "off")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(store: TokenStore, device: torch.device, tmp_path: Path) -> None:
    for precision in ("float32", "bfloat16"):
        options, whole, stopped = on(device, precision=precision), tmp_path / f"{precision}-1", tmp_path / precision
        pretrain(store, whole, options, quiet=True)
        pretrain(store, stopped, options, progress=StopAfter(3))
        pretrain(store, stopped, options, quiet=True)
        ours, theirs = (load_file(path / "model" / "model.safetensors") for path in (stopped, whole))
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[name], rtol=1e-2, atol=1e-4)
        losses = [
            [line["loss"] for line in RunDirectory(path).metrics() if "loss" in line] for path in (stopped, whole)
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_fine_tuning_learns(device: torch.device, tmp_path: Path) -> None:
    checkpoint = Checkpoint(new_model(tiny_config(), head_builder("pretraining"), seed=1), tiny_tokenizer())
    save_checkpoint(checkpoint, tmp_path / "base")
    words = {
        "warm": ["red dog runs", "the red cat", "a red house"],
        "cold": ["blue bird", "the blue dog", "a blue cat"],
    }
    rows = [{"text": text, "label": label} for label, texts in words.items() for text in texts] * 4
    for precision in ("float32", "bfloat16"):
        finetune(
            "classify", tmp_path / "base", rows, rows, tmp_path / precision,
            {"epochs": 12, "batch_size": 4, "lr": 3e-3, "device": str(device), "precision": precision}, quiet=True,
        )  # fmt: skip
        losses = [line["loss"] for line in RunDirectory(tmp_path / precision).metrics() if "loss" in line]
        assert losses[-1] < 0.5 * losses[0]


@contextmanager
def world_of_processes(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A process group of this process alone, as torchrun makes it."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    names = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    for name, value in names.items():
        monkeypatch.setenv(name, str(value))
    with join_world(choose_device(str(device).partition(":")[0])) as world:
        yield world


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_a_process_group_gives_the_gradients_of_a_process(
    way: str, store: TokenStore, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL on a GPU. That the group has a single process is hidden from what shares the model out."""
    options = on(device)
    plain, shared = stepper_of(store, options), stepper_of(store, options)
    plan = make_plan(store, options)
    batches = [batch.to(device) for batch in plan.micro_batches(0, 0, 1, options.micro_batch_tokens or 1)]
    assert len(batches) > 1
    with world_of_processes(device, monkeypatch) as world:
        if device.type == "cuda":
            assert torch.distributed.get_backend() == "nccl"
        sums = _Sums(shared.model, shared.objective, torch.float32)
        parallel = Replicated(sums, World(0, 2), device) if way == "ddp" else Sharded(sums, shared.model, world, device)
        for number, batch in enumerate(batches, 1):
            with parallel.micro_batch(number == len(batches)) as module:
                module(batch)["mlm_loss"].backward()
            _Sums(plain.model, plain.objective, torch.float32)(batch)["mlm_loss"].backward()
        exact = {name: gradient_of(parameter) for name, parameter in plain.model.named_parameters()}
        found = {name: gradient_of(parameter) for name, parameter in shared.model.named_parameters()}
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, exact[name], rtol=1e-3, atol=1e-4)
        assert World(0, 2).add([1.5, 2.0], device) == [1.5, 2.0]
        World(0, 2).wait()


def gradient_of(parameter: Tensor) -> Tensor:
    gradient = parameter.grad
    if gradient is None:
        return torch.zeros(0)
    whole: Tensor = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
    return whole


def test_out_of_memory_is_a_line(store: TokenStore, device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("of a GPU's memory")
    options = on(device, tokens_per_step=400_000, micro_batch_tokens=400_000)
    stepper = stepper_of(store, options)
    torch.cuda.empty_cache()
    _, whole = torch.cuda.mem_get_info(device)
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + (64 << 20)) / whole, device)
    try:
        with pytest.raises(UserError, match=r"with [\d,]+ tokens in one forward pass; micro_batch_tokens=\d+ halves"):
            stepper.step(0)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
