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
from dataclasses import dataclass
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

    sums: dict[str, float]
    counts: dict[str, int]

    def add(self, sums: dict[str, float], counts: dict[str, int]) -> None:
        for name in sums:
            self.sums[name] = self.sums.get(name, 0.0) + sums[name]
            self.counts[name] = self.counts.get(name, 0) + counts[name]

    def means(self) -> dict[str, float]:
        return {name: self.sums[name] / max(1, self.counts[name]) for name in self.sums}


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
    device = choose_device(options.device)
    dtype = choose_precision(options.precision, device)
    model.to(device).train()
    optimizer = build_optimizer(model, options)
    step, tokens, seconds, window = 0, 0, 0.0, _Window({}, {})
    hyperparameters = ("steps", "lr", "warmup", "weight_decay", "beta2", "clip")
    description = {**data.description, **{name: getattr(options, name) for name in hyperparameters}}
    state = run.restore(model, optimizer, description)
    if state is None:
        run.rewind_metrics(-1)
    else:
        data.restore(state["cursor"])
        step, tokens, seconds, window = state["step"], state["tokens"], state["seconds"], _Window(**state["window"])
        run.rewind_metrics(step)
        for line in state["skipped"]:
            progress.say(f"passed over a damaged checkpoint: {line}")
        progress.say(f"resuming at step {step:,} of {options.steps:,}")

    def save() -> None:
        run.save_checkpoint(
            model,
            optimizer,
            {
                "step": step,
                "tokens": tokens,
                "seconds": seconds,
                "window": {"sums": window.sums, "counts": window.counts},
                "cursor": data.cursor_json(step),
                "data": description,
            },
        )

    with _signals() as caught, progress:
        while step < options.steps and not caught:
            began = time.perf_counter()
            lr = learning_rate(step, options)
            batches = data.micro_batches(step, 0, 1, options.micro_batch_tokens)
            sums, counts, norm = train_step(model, objective, batches, optimizer, lr, dtype, device, options, step)
            step_tokens = sum(batch.num_tokens for batch in batches)
            step, tokens, seconds = step + 1, tokens + step_tokens, seconds + time.perf_counter() - began
            window.add(sums, counts)
            means = window.means()
            progress.update(step, options.steps, _total_loss(means), step_tokens, time.perf_counter() - began)
            if step % options.log_every == 0 or step == options.steps:
                pace = {"step": step, "tokens": tokens, "seconds": round(seconds, 3)}
                speed = round(step_tokens / max(1e-9, time.perf_counter() - began), 1)
                line = {**pace, "tokens_per_second": speed, "loss": _total_loss(means), **means}
                run.log({**line, "lr": lr, "grad_norm": norm})
                window = _Window({}, {})
            if step == options.steps or (options.evaluate_every and step % options.evaluate_every == 0):
                figures = {f"eval_{name}": value for name, value in evaluate().items()}
                model.train()
                if figures:
                    run.log({"step": step, "tokens": tokens, **figures})
                    progress.evaluated(step, figures)
            if step % options.checkpoint_every == 0 or step == options.steps:
                save()
        if caught and step < options.steps:
            save()
    return TrainResult(step, caught[0] if caught and step < options.steps else None, seconds)


def train_step(
    model: Bert,
    objective: Objective,
    batches: list[PackedBatch],
    optimizer: torch.optim.Optimizer,
    lr: float,
    dtype: torch.dtype,
    device: torch.device,
    options: TrainOptions,
    step: int,
) -> tuple[dict[str, float], dict[str, int], float]:
    """One optimizer step over micro-batches; returns sums and counts by name, and the gradient norm before clipping.

    Dividing by the step's counts, not each micro-batch's, makes the step independent of how it was cut.
    """
    torch.manual_seed(int(mix(options.seed, step)) >> 1)  # dropout
    counts: dict[str, int] = defaultdict(int)
    for batch in batches:
        for name, count in objective.counts(batch.targets).items():
            counts[name] += count
    totals: dict[str, torch.Tensor] = {}
    for batch in batches:
        batch = batch.to(device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            scores = model(batch)
        sums = objective.sums(scores, batch.targets)
        loss = sum(value / max(1, counts[name]) for name, value in sums.items() if name.endswith("loss"))
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        for name, value in sums.items():
            totals[name] = totals.get(name, torch.zeros((), device=device)) + value.detach()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip)
    if not math.isfinite(float(norm)):
        raise UserError(
            f"step {step + 1}: the gradient is not finite (norm {float(norm)}); the last checkpoint is from before; "
            "try a lower --lr or --precision float32"
        )
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {name: float(value) for name, value in totals.items()}, dict(counts), float(norm)


@torch.no_grad()
def evaluate_objective(
    model: Bert, objective: Objective, batches: Iterable[PackedBatch], precision: torch.dtype
) -> dict[str, float]:
    """Means of the objective's sums over all batches, with dropout off."""
    model.eval()
    device = next(model.parameters()).device
    window = _Window({}, {})
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
