"""The training loop. It knows an objective, a source of batches and a run directory, and nothing of any task.

One step: the micro-batches of step k, forward and backward each, losses divided by the counts of the whole step;
clip; AdamW. Everything random follows from (seed, step), so a run resumed at any step repeats the uninterrupted one
bit for bit on a CPU.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch

from bothways.data.objectives import mix
from bothways.data.packing import PackedBatch
from bothways.errors import UserError
from bothways.model.heads import Bert
from bothways.tasks.base import Objective
from bothways.train.optimizer import build_optimizer, learning_rate
from bothways.train.options import TrainOptions, choose_device, choose_precision
from bothways.train.progress import Progress
from bothways.train.run import RunDirectory


class StepData(Protocol):
    """Where the loop's batches come from: a pure function of the step."""

    description: dict[str, Any]  # what a resumed run must share, by name

    def micro_batches(self, step: int, rank: int, world_size: int, token_budget: int) -> list[PackedBatch]: ...

    def cursor_json(self, step: int) -> dict[str, int]: ...

    def restore(self, cursor: dict[str, int]) -> None: ...


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
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, sums: dict[str, float], counts: dict[str, int]) -> None:
        for name in sums:
            self.sums[name] = self.sums.get(name, 0.0) + sums[name]
            self.counts[name] = self.counts.get(name, 0) + counts[name]

    def means(self) -> dict[str, float]:
        return {name: self.sums[name] / max(1, self.counts[name]) for name in self.sums}


@dataclass
class _State:
    """How far a run is: what a checkpoint keeps besides the tensors. seconds: of training, over all resumptions."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    window: _Window = field(default_factory=_Window)


@dataclass(frozen=True)
class StepResult:
    """Sums and counts by name, real tokens, the gradient norm before clipping, the learning rate, and seconds."""

    sums: dict[str, float]
    counts: dict[str, int]
    tokens: int
    grad_norm: float
    lr: float
    seconds: float


class Stepper:
    """A model with its optimizer on its device: takes single steps, and knows nothing of runs."""

    def __init__(self, model: Bert, objective: Objective, data: StepData, options: TrainOptions) -> None:
        self.model, self.objective, self.data, self.options = model, objective, data, options
        self.device = choose_device(options.device)
        self.dtype = choose_precision(options.precision, self.device)
        model.to(self.device).train()
        self.optimizer = build_optimizer(model, options)

    def step(self, step: int) -> StepResult:
        """One optimizer step over the micro-batches of step `step`.

        Dividing by the step's counts, not each micro-batch's, makes the step independent of how it was cut.
        Raises UserError when the gradient is not finite, before the weights are changed.
        """
        began = time.perf_counter()
        torch.manual_seed(int(mix(self.options.seed, step)) >> 1)  # dropout
        batches = self.data.micro_batches(step, 0, 1, self.options.micro_batch_tokens)
        counts: dict[str, int] = defaultdict(int)
        for batch in batches:
            for name, count in self.objective.counts(batch.targets).items():
                counts[name] += count
        sums: dict[str, torch.Tensor] = {}
        for batch in batches:
            for name, value in self._forward_and_backward(batch, counts).items():
                sums[name] = sums[name] + value if name in sums else value
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip))
        if not math.isfinite(norm):
            raise UserError(
                f"step {step + 1}: the gradient is not finite (norm {norm}); the last checkpoint is from before; "
                "try a lower --lr or --precision float32"
            )
        lr = learning_rate(step, self.options)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        tokens = sum(batch.num_tokens for batch in batches)
        by_name = {name: float(value) for name, value in sums.items()}
        return StepResult(by_name, dict(counts), tokens, norm, lr, time.perf_counter() - began)

    def _forward_and_backward(self, batch: PackedBatch, counts: dict[str, int]) -> dict[str, torch.Tensor]:
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            scores = self.model(batch)
        sums = self.objective.sums(scores, batch.targets)
        losses = [value / max(1, counts[name]) for name, value in sums.items() if name.endswith("loss")]
        torch.stack(losses).sum().backward()
        return {name: value.detach() for name, value in sums.items()}


def train(
    model: Bert,
    objective: Objective,
    data: StepData,
    options: TrainOptions,
    run: RunDirectory,
    progress: Progress,
    evaluate: Callable[[], dict[str, float]] = dict,
) -> TrainResult:
    """Train `model` in place for `options.steps` steps, resuming from the run's last checkpoint if there is one.

    evaluate: called every `evaluate_every` steps and at the end; its values are logged with the prefix `eval_`.
    SIGINT and SIGTERM end the run after the step at hand, with a checkpoint.
    Raises UserError when the checkpoint belongs to other data, or the loss is not finite.
    """
    stepper = Stepper(model, objective, data, options)
    hyperparameters = ("steps", "lr", "warmup", "weight_decay", "beta2", "clip")
    description = {**data.description, **{name: getattr(options, name) for name in hyperparameters}}
    state = _resume(stepper, run, description, progress)

    def save() -> None:
        cursor = data.cursor_json(state.step)
        run.save_checkpoint(model, stepper.optimizer, {**asdict(state), "cursor": cursor, "data": description})

    with _signals() as caught, progress:
        while state.step < options.steps and not caught:
            result = stepper.step(state.step)
            state.step += 1
            state.tokens += result.tokens
            state.seconds += result.seconds
            state.window.add(result.sums, result.counts)
            loss = _total_loss(state.window.means())
            progress.update(state.step, options.steps, loss, result.tokens, result.seconds)
            last = state.step == options.steps
            if last or state.step % options.log_every == 0:
                run.log(_log_line(state, result))
                state.window = _Window()
            if last or (options.evaluate_every and state.step % options.evaluate_every == 0):
                figures = {f"eval_{name}": value for name, value in evaluate().items()}
                model.train()
                if figures:
                    run.log({"step": state.step, "tokens": state.tokens, **figures})
                    progress.evaluated(state.step, figures)
            if last or state.step % options.checkpoint_every == 0:
                save()
        stopped = bool(caught) and state.step < options.steps
        if stopped:
            save()
    return TrainResult(state.step, caught[0] if stopped else None, state.seconds)


def _resume(stepper: Stepper, run: RunDirectory, description: dict[str, Any], progress: Progress) -> _State:
    saved = run.restore(stepper.model, stepper.optimizer, description)
    if saved is None:
        run.rewind_metrics(-1)
        return _State()
    stepper.data.restore(saved["cursor"])
    run.rewind_metrics(saved["step"])
    for line in saved["skipped"]:
        progress.say(f"passed over a damaged checkpoint: {line}")
    progress.say(f"resuming at step {saved['step']:,} of {stepper.options.steps:,}")
    return _State(saved["step"], saved["tokens"], saved["seconds"], _Window(**saved["window"]))


def _log_line(state: _State, result: StepResult) -> dict[str, Any]:
    means = state.window.means()
    return {
        "step": state.step,
        "tokens": state.tokens,
        "seconds": round(state.seconds, 3),
        "tokens_per_second": round(result.tokens / max(1e-9, result.seconds), 1),
        "loss": _total_loss(means),
        **means,
        "lr": result.lr,
        "grad_norm": result.grad_norm,
    }


@torch.no_grad()
def evaluate_objective(
    model: Bert, objective: Objective, batches: Iterable[PackedBatch], precision: torch.dtype
) -> dict[str, float]:
    """Means of the objective's sums over all batches, with dropout off."""
    model.eval()
    device = next(model.parameters()).device
    window = _Window()
    for batch in batches:
        batch = batch.to(device)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            scores = model(batch)
        sums = objective.sums(scores, batch.targets)
        window.add({name: float(value) for name, value in sums.items()}, objective.counts(batch.targets))
    return window.means()


def _total_loss(means: dict[str, float]) -> float:
    return sum(value for name, value in means.items() if name.endswith("loss"))


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
