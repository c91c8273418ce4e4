"""The training loop: steps, log lines, evaluations, checkpoints. It knows an objective, a source of batches and a run
directory, and nothing of any task. A run resumed at any step repeats the uninterrupted one bit for bit on a CPU, if
Bothways is installed as it was.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from bothways.batch import PackedBatch
from bothways.hardware import measured_peak
from bothways.model.heads import Model, device_of
from bothways.native import is_missing
from bothways.progress import Progress
from bothways.tasks.base import Objective
from bothways.train import memory
from bothways.train.distributed import World, reshard
from bothways.train.options import TrainOptions
from bothways.train.run import RunDirectory
from bothways.train.step import BatchSource, Stepper, StepResult
from bothways.train.tensorboard import tensorboard_writer


@dataclass(frozen=True)
class TrainResult:
    """steps: how many are done. interrupted: the signal that stopped the run early, or None. seconds: of training."""

    steps: int
    interrupted: signal.Signals | None
    seconds: float


@dataclass
class _Window:
    """Sums and counts since the last log line; part of a checkpoint, so that a resumed run logs the same figures."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)

    def add(self, sums: dict[str, float], counts: Mapping[str, float]) -> None:
        for name in sums:
            self.sums[name] = self.sums.get(name, 0.0) + sums[name]
            self.counts[name] = self.counts.get(name, 0) + counts[name]

    def means(self) -> dict[str, float]:
        return {name: self.sums[name] / (self.counts[name] or 1) for name in self.sums}


@dataclass
class _State:
    """How far a run is: what a checkpoint keeps besides the tensors. seconds: of training, over all resumptions."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    window: _Window = field(default_factory=_Window)

    def add(self, result: StepResult) -> None:
        self.step += 1
        self.tokens += result.tokens
        self.seconds += result.seconds
        self.window.add(result.sums, result.counts)


def train(
    model: Model,
    objective: Objective,
    data: BatchSource,
    options: TrainOptions,
    run: RunDirectory,
    progress: Progress,
    evaluate: Callable[[], dict[str, Any]] = dict,
    world: World | None = None,
    *,
    done: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train `model` in place for `options.steps` steps, resuming from the run's last checkpoint if there is one.

    evaluate: called every `evaluate_every` steps and at the end, on every process; its values are logged with the
    prefix `eval_`. done: asked at the start and after each evaluation whether enough has been learnt. SIGINT and
    SIGTERM end the run after the step at hand, with a checkpoint.
    Raises UserError when the checkpoint is of a run with other data or settings, when the norm of a step's gradient is
    not finite, and when memory runs out. A loss is not looked at by itself.
    """
    memory.limit_onednn_cache()
    world = world or World()
    stepper = Stepper(model, objective, data, options, world)
    hyperparameters = ("steps", "lr", "warmup", "weight_decay", "beta2", "clip", "optimizer")
    description = {**data.description, **{name: getattr(options, name) for name in hyperparameters}}
    state = _resume(stepper, data, run, description, progress)
    if stepper.device.type == "cpu" and is_missing():
        progress.say("attention without compiled code: it is faster after an install where there is a C++ compiler")
    board = tensorboard_writer(run.path, state.step) if options.tensorboard and world.main else None
    log = _Log(run, progress, options, measured_peak(stepper.device, stepper.dtype) * world.size, board)

    def save() -> None:
        cursor = stepper.data.cursor_json(state.step)
        kept = {**asdict(state), "cursor": cursor, "data": description}
        run.save_checkpoint(model, stepper.optimizer, kept, world, options.keep_checkpoints)

    stopped, enough = False, done()
    profiling = _profiling(run, progress, options.profile and world.main)
    with _signals() as caught, memory.hold_freed_memory(), progress, profiling as tick:
        while state.step < options.steps and not stopped and not enough:
            result = stepper.step(state.step, stop=bool(caught))
            tick()
            state.add(result)
            log.step(state, result)
            last = state.step == options.steps
            if last or (options.evaluate_every and state.step % options.evaluate_every == 0):
                log.evaluated(state, evaluate())
                reshard(model)
                model.train()
                enough = done()
            stopped = not last and (result.stop if world.size > 1 else bool(caught))
            if last or stopped or enough or state.step % options.checkpoint_every == 0:
                save()
    return TrainResult(state.step, (caught or [signal.SIGTERM])[0] if stopped else None, state.seconds)


def _resume(
    stepper: Stepper, data: BatchSource, run: RunDirectory, description: dict[str, Any], progress: Progress
) -> _State:
    saved = run.restore(stepper.model, stepper.optimizer, description, stepper.world)
    run.rewind_metrics(saved["step"] if saved else -1)
    if saved is None:
        return _State()
    data.restore(saved["cursor"])
    for line in saved["skipped"]:
        progress.say(f"passed over a damaged checkpoint: {line}")
    progress.say(f"resuming at step {saved['step']:,} of {stepper.options.steps:,}")
    return _State(saved["step"], saved["tokens"], saved["seconds"], _Window(**saved["window"]))


@contextlib.contextmanager
def _profiling(run: RunDirectory, progress: Progress, wanted: bool) -> Iterator[Callable[[], None]]:
    """Trace three steps from here, after two, into RUN/trace.json; what is yielded is called after each step. A run of
    fewer steps leaves no trace, and says so."""
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
        progress.say("--profile: no trace, as it takes five steps")


class _Log:
    """What each step and evaluation leaves in metrics.jsonl, in TensorBoard and on the screen.

    peak: FLOP/s that the machines could do. board: TensorBoard's writer, or None.
    """

    def __init__(self, run: RunDirectory, progress: Progress, options: TrainOptions, peak: float, board: Any) -> None:
        self.run, self.progress, self.options, self.peak, self.board = run, progress, options, peak, board

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
            "loss": sum(value for name, value in means.items() if name.endswith("loss")),
            **means,
            "lr": result.lr,
            "grad_norm": result.grad_norm,
        }
        speed = {
            "tokens_per_second": round(result.tokens / max(1e-9, result.seconds), 1),
            "fraction_of_peak": round(result.flops / max(1e-9, result.seconds) / self.peak, 4),
        }
        self.progress.update(state.step, self.options.steps, {**figures, **speed}, result.tokens, result.seconds)
        if state.step == self.options.steps or state.step % self.options.log_every == 0:
            self._write(state, {"seconds": round(state.seconds, 3), **speed, **figures})
            state.window = _Window()

    def evaluated(self, state: _State, values: dict[str, Any]) -> None:
        if values:
            figures = {f"eval_{name}": value for name, value in values.items()}
            self._write(state, figures)
            numbers = {name: value for name, value in figures.items() if isinstance(value, float)}
            self.progress.evaluated(state.step, numbers)


@torch.no_grad()
def evaluate_objective(
    model: Model, objective: Objective, batches: Iterable[PackedBatch], precision: torch.dtype
) -> dict[str, float]:
    """Means of the objective's sums over all batches, with dropout off."""
    model.eval()
    device = device_of(model)
    window = _Window()
    for batch in batches:
        batch = batch.to(device)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            scores = model(batch)
        sums = objective.sums(scores, batch.targets)
        window.add({name: float(value) for name, value in sums.items()}, objective.counts(batch.targets))
    return window.means()


@contextlib.contextmanager
def _signals() -> Iterator[list[signal.Signals]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second one is obeyed at once."""
    caught: list[signal.Signals] = []

    def handle(number: int, frame: object) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(signal.Signals(number))

    try:
        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are another's to handle
        yield caught
        return
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
