"""How fast this machine pretrains: a few real steps, an evaluation and a checkpoint of a throw-away model.

Nothing of it is in what a run learns: the model, the optimizer and the plan are its own, and what is random follows
from keys.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from bothways.data.phases import Phase
from bothways.data.store import TokenStore
from bothways.files import user_errors
from bothways.hardware import measured_peak
from bothways.train.distributed import World
from bothways.train.held_out import evaluate_held_out
from bothways.train.memory import hold_freed_memory, limit_onednn_cache
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.pretrain_plan import (
    MIN_VALIDATION_TOKENS,
    build_objective,
    loop_options,
    make_plan,
    make_validation_plan,
    phases_of,
)
from bothways.train.run import RunDirectory
from bothways.train.samples import samples
from bothways.train.starting_point import starting_point
from bothways.train.step import Stepper, StepResult

WARM_UP_STEPS = 2  # the first allocates the optimizer's state, and memory is warm after the second
MEASURED_STEPS = (2, 8)  # of each phase: at least, and at most
MEASURED_SHARE = 0.02  # of the time that there is, which measuring takes at most where it has its least steps
NEXT_TO_NOTHING = 1e-12  # a learning rate: the same arithmetic, and a model that stays as it was made
ANY_STEPS = 10_000  # of the run that is measured, which is never finished

_Made = TypeVar("_Made")


@dataclass(frozen=True)
class TrainingSpeed:
    """Tokens and floating-point operations (`train.flops`) a second."""

    tokens_per_second: float
    flops_per_second: float


@dataclass(frozen=True)
class Costs:
    """Seconds that the parts of a run take.

    start: the model is made, and its kernels warm up. steps: a step of each phase. evaluation: one that reads
    `MIN_VALIDATION_TOKENS`, with its samples; 0 where there is no text to measure on. validation_token: each token
    beyond them, of `held_out_tokens` at most. checkpoint: to write one.
    """

    start: float
    steps: tuple[float, ...]
    evaluation: float
    validation_token: float
    checkpoint: float
    held_out_tokens: int


def measure_speed(store: TokenStore, options: PretrainOptions, steps: int = 8) -> TrainingSpeed:
    """The speed of a few training steps, after `WARM_UP_STEPS`. steps: that are measured."""
    objective = build_objective(options)
    model = starting_point(store, objective, options).model
    stepper = Stepper(model, objective, make_plan(store, options), loop_options(options, model.config))
    results = [stepper.step(step) for step in range(WARM_UP_STEPS + steps)][WARM_UP_STEPS:]
    seconds = sum(result.seconds for result in results)
    tokens, flops = sum(result.tokens for result in results), sum(result.flops for result in results)
    return TrainingSpeed(tokens / seconds, flops / seconds)


def measure_costs(store: TokenStore, options: PretrainOptions, out: Path, world: World, seconds: float) -> Costs:
    """What a run of these options would take, by the main process's clock. All processes must call it.

    out: the run's directory, beside which a checkpoint is written and removed. seconds: that there are for the run.
    """
    limit_onednn_cache()
    options = replace(options, steps=ANY_STEPS)
    objective, phases = build_objective(options), phases_of(options)

    def make() -> Stepper:
        model = starting_point(store, objective, options).model
        settings = replace(loop_options(options, model.config), lr=NEXT_TO_NOTHING)
        return Stepper(model, objective, make_plan(store, options), settings, world)

    with hold_freed_memory():
        make().step(0)  # what a process does once: it imports, it compiles kernels and keeps them on disk
        _forget_compiled()
        start, stepper = _timed(make)
        measured_peak(stepper.device, stepper.dtype)  # which the run does as well, and keeps
        measured = [_few_steps(stepper, phase, MEASURED_SHARE * seconds / len(phases)) for phase in phases]
        evaluation = _evaluation_seconds(stepper, store, options)
        checkpoint = _checkpoint_seconds(stepper, out)
    _forget_compiled()
    steps = [_mean_seconds(results[WARM_UP_STEPS:]) for results in measured]
    for results, mean in zip(measured, steps, strict=True):
        start += max(0.0, WARM_UP_STEPS * (_mean_seconds(results[:WARM_UP_STEPS]) - mean))
    token = steps[-1] / measured[-1][-1].tokens / 3  # training multiplies three times as much
    start, steps, evaluation, token, checkpoint = world.agree([start, steps, evaluation, token, checkpoint])
    return Costs(start, tuple(steps), evaluation, token, checkpoint, store.split("validation").tokens)


def _forget_compiled() -> None:
    """Let `torch.compile` begin anew, as it does in a run: past eight models it would compile no more."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def _timed(function: Callable[[], _Made]) -> tuple[float, _Made]:
    """The seconds that a function takes, and what it gives."""
    began = time.perf_counter()
    made = function()
    return time.perf_counter() - began, made


def _few_steps(stepper: Stepper, phase: Phase, seconds: float) -> list[StepResult]:
    """The first steps of a phase: `WARM_UP_STEPS`, and behind them as many as the seconds allow."""
    results, began = [], time.perf_counter()
    least, most = (WARM_UP_STEPS + steps for steps in MEASURED_STEPS)
    for step in itertools.count(phase.first):
        results.append(stepper.step(step))
        enough = len(results) >= least and time.perf_counter() - began > seconds
        if stepper.world.agree(enough or len(results) == most):
            return results
    raise AssertionError  # not reached


def _evaluation_seconds(stepper: Stepper, store: TokenStore, options: PretrainOptions) -> float:
    """An evaluation of `MIN_VALIDATION_TOKENS`, with its samples; 0 where there is no text to measure on."""
    validation = make_validation_plan(store, options)
    if validation is None:
        return 0.0
    few = replace(options, validation_tokens=MIN_VALIDATION_TOKENS)

    def evaluate() -> None:
        evaluate_held_out(stepper.model, stepper.objective, validation, few, stepper.world)
        samples(stepper.model, validation)

    return [_timed(evaluate)[0] for _ in range(2)][1]  # the second with warm kernels


def _checkpoint_seconds(stepper: Stepper, out: Path) -> float:
    world = stepper.world
    with _folder_beside(out, world) as folder:
        run = RunDirectory(folder, world)
        return _timed(lambda: run.save_checkpoint(stepper.model, stepper.optimizer, {"step": 0}, world, keep=1))[0]


def _mean_seconds(results: list[StepResult]) -> float:
    return sum(result.seconds for result in results) / len(results)


@contextlib.contextmanager
def _folder_beside(out: Path, world: World) -> Iterator[Path]:
    """An empty folder on the disk of `out`, which may not be there yet; it is removed with the block."""
    near = next(path for path in out.resolve().parents if path.is_dir())
    with user_errors(near), contextlib.ExitStack() as stack:
        made = stack.enter_context(tempfile.TemporaryDirectory(prefix=".measuring-", dir=near)) if world.main else ""
        yield Path(world.agree(made))
        world.wait()
