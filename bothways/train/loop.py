"""The training loop: steps, log lines, evaluations, checkpoints.

It knows a stepper and a run's directory, and nothing of any task. A run resumed at any step repeats the uninterrupted
run bit for bit on a CPU, if Bothways is installed as it was.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch

from bothways.batch import PackedBatch
from bothways.errors import option
from bothways.hardware import measured_peak
from bothways.model.heads import Model, device_of
from bothways.native.loading import is_missing
from bothways.option_checks import rounded_repr
from bothways.progress import Progress
from bothways.tasks.base import Objective
from bothways.train.distributed import World, reshard
from bothways.train.memory import hold_freed_memory, limit_onednn_cache
from bothways.train.options import TrainOptions
from bothways.train.run import RunDirectory
from bothways.train.schedule import learning_rate
from bothways.train.step import OnMicroBatch, StepAbandoned, Stepper, StepResult
from bothways.train.stopping import StopSignals
from bothways.train.tensorboard import tensorboard_writer

# What a run must share with the checkpoint that it resumes from, besides the identity of its data.
RESUME_OPTIONS = ("steps", "lr", "warmup", "weight_decay", "beta2", "clip", "optimizer")

# Why a run ends: its steps are done, it was asked to by a signal, or evaluations say that it has learnt enough.
StopReason = Literal["steps", "signal", "evaluation"]


@dataclass(frozen=True, repr=False)
class TrainResult:
    """steps: how many are done. interrupted: the signal that stopped the run early, or None. seconds: of training."""

    steps: int
    interrupted: signal.Signals | None
    seconds: float

    __repr__ = rounded_repr


@dataclass
class _RunningMeans:
    """Sums and counts since the last log line. A checkpoint keeps them (as "window"), so that a resumed run logs the
    same means."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)

    def add(self, sums: dict[str, float], counts: Mapping[str, float]) -> None:
        for name in sums:
            self.sums[name] = self.sums.get(name, 0.0) + sums[name]
            self.counts[name] = self.counts.get(name, 0) + counts[name]

    @classmethod
    def from_json(cls, saved: Mapping[str, Mapping[str, float | None]]) -> _RunningMeans:
        """What a checkpoint kept, where a sum that was not finite is null."""
        found = {
            name: {key: math.nan if value is None else value for key, value in values.items()}
            for name, values in saved.items()
        }
        return cls(**found)

    def means(self) -> dict[str, float]:
        return {name: self.sums[name] / (self.counts[name] or 1) for name in self.sums}


@dataclass
class _State:
    """How far a run is: what a checkpoint keeps besides the tensors. seconds: of training, over all resumptions."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    window: _RunningMeans = field(default_factory=_RunningMeans)

    def add(self, result: StepResult) -> None:
        self.step += 1
        self.tokens += result.tokens
        self.seconds += result.seconds
        self.window.add(result.sums, result.counts)


def train(
    stepper: Stepper,
    run: RunDirectory,
    progress: Progress,
    evaluate: Callable[[int], dict[str, Any]],
    has_learnt_enough: Callable[[], bool] = lambda: False,
    identity_at: Callable[[int], Mapping[str, Any]] | None = None,
) -> TrainResult:
    """Train the stepper's model in place for `options.steps` steps, resuming from the run's last checkpoint if there is
    one.

    evaluate: called every `evaluate_every` steps and at the end, with the number of steps that are done, on every
    process; its values are logged with the prefix `eval_`. has_learnt_enough: asked at the start and after each
    evaluation; True ends the run. identity_at: the data's identity in a run of so many steps, where it depends on that.
    A run that goes on with another number of steps is from there on as a run of that many steps is. SIGINT and SIGTERM
    end the run with a checkpoint: between two micro-batches, whose step is then given up, or, where several processes
    work on it, after the step at hand.
    Raises UserError when the checkpoint is of a run with other data or settings, when the norm of a step's gradient is
    not finite, and when memory runs out. A loss is not looked at by itself.
    """
    limit_onednn_cache()
    options, world = stepper.options, stepper.world
    settings = {name: getattr(options, name) for name in RESUME_OPTIONS}
    if options.decay < 1:  # a run without a stable phase is what it was before there were any
        settings["decay"] = options.decay

    def identity_of(steps: int) -> dict[str, Any]:
        data = stepper.data.identity if identity_at is None else identity_at(steps)
        return {**data, **settings, "steps": steps}

    identity = {**stepper.data.identity, **settings}
    state = _resume(stepper, run, identity_of, progress)
    log, resumed_at = _Log(run, progress, stepper, state.step), state.step

    def save() -> None:
        kept = {**asdict(state), "cursor": stepper.cursor_json(state.step), "data": identity}
        run.save_checkpoint(stepper.model, stepper.optimizer, kept, world, options.keep_checkpoints)

    stop = _why_stop(state, options, signalled=False, enough=has_learnt_enough())
    if stop is None:
        run.reopen()
        progress.start()
    profiling = _profiling(run, progress, options.profile and world.main)
    signals = StopSignals(lambda number: progress.say(_answer(number, run)), lambda: _last_words(run))
    with signals, hold_freed_memory(), progress, profiling as profile_step:
        while stop is None:
            try:
                asked, within = bool(signals.caught), log.within_step(state, signals)
                result = stepper.step(state.step, stop=asked, on_micro_batch=within)
            except StepAbandoned:
                stop = "signal"
                if state.step > resumed_at:
                    save()
                break
            profile_step()
            state.add(result)
            log.step(state, result)
            enough = False
            if _is_due(state, options, options.evaluate_every):
                progress.wait(f"{progress.title}  step {state.step:,}  measuring …")
                log.evaluated(state, evaluate(state.step))
                reshard(stepper.model)
                stepper.model.train()
                enough = has_learnt_enough()
            # several processes stop together: where any was asked to before this step began
            signalled = result.stop if world.size > 1 else bool(signals.caught)
            stop = _why_stop(state, options, signalled, enough)
            if stop is not None or _is_due(state, options, options.checkpoint_every):
                save()
    number = (signals.caught or [signal.SIGTERM])[0]  # the signal may have been another process's
    return TrainResult(state.step, number if stop == "signal" else None, state.seconds)


def _answer(number: signal.Signals, run: RunDirectory) -> str:
    """What is said at once when a signal asks a training to stop."""
    saved = _saved_step(run)
    so_far = f"step {saved:,} is saved" if saved else "nothing is saved yet"
    again = f" (Ctrl-C again stops at once; {so_far})" if number == signal.SIGINT else ""
    return f"stopping: what is learnt so far is saved as soon as the tokens at hand are done{again}"


def _last_words(run: RunDirectory) -> str:
    """What a second signal leaves behind, and how to go on."""
    saved = _saved_step(run)
    if not saved:
        return f"stopped at once; nothing is saved in {run.path} yet, so the same command again begins anew"
    again = "the same command again" + (f", without {option('overwrite', True)}," if run.overwrites else "")
    return f"stopped at once; {run.path} has step {saved:,}, and {again} goes on from there"


def _saved_step(run: RunDirectory) -> int:
    """The step of the newest checkpoint; 0 where there is none."""
    return max((int(path.name.removeprefix("step-")) for path in run.checkpoints()), default=0)


def say_if_not_compiled(device: torch.device, progress: Progress) -> None:
    """Tell the user where training on a CPU lacks the compiled attention that this machine could have."""
    if device.type == "cpu" and is_missing():
        progress.say("attention without compiled code: it is faster after an install where there is a C++ compiler")


def _why_stop(state: _State, options: TrainOptions, signalled: bool, enough: bool) -> StopReason | None:
    """Why the run ends now, the first reason that holds; None: it goes on."""
    if state.step >= options.steps:
        return "steps"
    if signalled:
        return "signal"
    return "evaluation" if enough else None


def _is_due(state: _State, options: TrainOptions, every: int) -> bool:
    """Whether what is done `every` steps (0: only at the end) is done after this step."""
    return state.step == options.steps or (every > 0 and state.step % every == 0)


def _resume(
    stepper: Stepper, run: RunDirectory, identity_of: Callable[[int], dict[str, Any]], progress: Progress
) -> _State:
    """Load the last checkpoint into the stepper and drop the metrics after it; without a checkpoint the first state."""
    saved = run.restore(stepper.model, stepper.optimizer, identity_of, stepper.world)
    run.rewind_metrics(saved["step"] if saved else -1)
    if saved is None:
        return _State()
    stepper.data.restore(saved["cursor"])
    for line in saved["skipped"]:
        progress.say(f"passed over a damaged checkpoint: {line}")
    progress.say(_how_it_goes_on(run, saved["step"], saved["data"]["steps"], stepper.options))
    run.go_on()
    return _State(saved["step"], saved["tokens"], saved["seconds"], _RunningMeans.from_json(saved["window"]))


def _how_it_goes_on(run: RunDirectory, step: int, before: int, options: TrainOptions) -> str:
    """How a run of `before` steps, of which `step` are done, goes on, in a line."""
    if step >= options.steps and before == options.steps:
        return f"{run.path}: done already, {step:,} steps"
    if step >= options.steps:
        return f"{run.path}: {step:,} steps are done, so a run of {options.steps:,} steps ends here"
    resuming = f"resuming at step {step:,} of {options.steps:,}"
    if before == options.steps:
        return resuming
    rates = [learning_rate(step, replace(options, steps=steps)) for steps in (before, options.steps)]
    return (
        f"{resuming}, which were {before:,}: the schedule goes on as a run of {options.steps:,} steps has it, the "
        f"learning rate {'rises' if rates[1] > rates[0] else 'falls'} from {rates[0]:.1e} to {rates[1]:.1e}"
    )


@contextlib.contextmanager
def _profiling(run: RunDirectory, progress: Progress, wanted: bool) -> Iterator[Callable[[], None]]:
    """Trace steps 3 to 5 from here into RUN/trace.json. Yields a function to call after each step. A run of fewer steps
    leaves no trace, and says so."""
    if not wanted:
        yield lambda: None
        return
    from torch.profiler import profile, schedule

    with profile(
        schedule=schedule(wait=1, warmup=1, active=3, repeat=1),
        on_trace_ready=lambda made: made.export_chrome_trace(str(run.path / "trace.json")),
        acc_events=True,
    ) as profiler:
        yield profiler.step
    if not (run.path / "trace.json").exists():
        progress.say(f"{option('profile')}: no trace, as it takes five steps")


class _Log:
    """Writes what each step and evaluation came to into metrics.jsonl, TensorBoard and onto the screen.

    step: the step at which the run begins or goes on.
    """

    def __init__(self, run: RunDirectory, progress: Progress, stepper: Stepper, step: int) -> None:
        self.run, self.progress = run, progress
        self.options, self.losses, self.world = stepper.options, stepper.objective.losses, stepper.world
        self.peak = measured_peak(stepper.device, stepper.dtype) * stepper.world.size
        wanted = self.options.tensorboard and stepper.world.main
        self.board = tensorboard_writer(run.path, step) if wanted else None

    def _write(self, state: _State, values: dict[str, Any]) -> None:
        self.run.log({"step": state.step, "tokens": state.tokens, **values})
        if self.board is not None:
            for name, value in values.items():
                if isinstance(value, float):
                    self.board.add_scalar(name, value, state.step)
            self.board.flush()

    def step(self, state: _State, result: StepResult) -> None:
        means = state.window.means()
        figures = {
            "loss": sum(means[name] for name in self.losses),
            **means,
            "lr": result.lr,
            "grad_norm": result.grad_norm,
        }
        rate = result.flops / max(1e-9, result.seconds)
        self.peak = max(self.peak, rate)  # measured while others had the machine it is less than what a step reaches
        speed = {
            "tokens_per_second": round(result.tokens / max(1e-9, result.seconds), 1),
            "fraction_of_peak": round(rate / self.peak, 4),
        }
        self.progress.update(state.step, self.options.steps, {**figures, **speed}, result.tokens, result.seconds)
        if _is_due(state, self.options, self.options.log_every):
            self._write(state, {"seconds": round(state.seconds, 3), **speed, **figures})
            state.window = _RunningMeans()

    def within_step(self, state: _State, signals: StopSignals) -> OnMicroBatch:
        """Shows how much of the coming step is done, and gives it up where one process works and is to stop."""
        began, world = time.perf_counter(), self.world

        def on_micro_batch(done: int, tokens: int) -> None:
            if signals.caught and world.size == 1:
                raise StepAbandoned
            seconds = time.perf_counter() - began
            self.progress.within(state.step + 1, self.options.steps, done / tokens, done * world.size, seconds)

        return on_micro_batch

    def evaluated(self, state: _State, values: dict[str, Any]) -> None:
        if values:
            figures = {f"eval_{name}": value for name, value in values.items()}
            self._write(state, figures)
            numbers = {name: value for name, value in figures.items() if isinstance(value, float)}
            self.progress.evaluated(state.step, numbers)


@torch.no_grad()
def evaluate_objective(
    model: Model,
    objective: Objective,
    share: Iterable[tuple[PackedBatch, bool]],
    precision: torch.dtype,
    world: World | None = None,
) -> dict[str, float]:
    """Means of the objective's sums over the batches of all processes, by name, with dropout off; the same to the bit
    however many there are. All processes must call it.

    share: this process's batches, and whether they count (`PretrainingPlan.evaluation_share`).
    """
    model.eval()
    device, world = device_of(model), world or World()
    own = []
    for batch, counts in share:
        batch = batch.to(device)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            scores = model(batch)
        sums = objective.sums(scores, batch.targets)
        if counts:
            own.append(({name: float(value) for name, value in sums.items()}, objective.counts(batch.targets)))
    running = _RunningMeans()
    for turn in itertools.zip_longest(*world.gather(own)):  # in the order of the batches, as sums are rounded
        for measured in filter(None, turn):
            running.add(*measured)
    return running.means()
