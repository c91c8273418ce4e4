"""One optimizer step: the micro-batches of step k, forward and backward each, clip, update.

Losses are divided by the counts of the whole step over all processes, so a step without dropout is the same, up to
rounding, however it was cut or shared out. Dropout is drawn in the order of the micro-batches, from (seed, step, rank).
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bothways.batch import PackedBatch
from bothways.counter_random import mix
from bothways.errors import UserError
from bothways.hardware import choose_device, choose_precision, micro_batch_tokens
from bothways.model.heads import Model
from bothways.tasks.base import Objective
from bothways.train.distributed import Replicated, Sharded, World, full_tensor
from bothways.train.flops import training_flops
from bothways.train.optimizer import build_optimizer, learning_rate
from bothways.train.options import TrainOptions, compiles


class BatchSource(Protocol):
    """Where the loop's batches come from: a pure function of the step."""

    identity: dict[str, Any]  # what a resumed run must share, by name

    def micro_batches(self, step: int, rank: int, world_size: int, token_budget: int) -> list[PackedBatch]: ...

    def cursor_json(self, step: int) -> dict[str, int]: ...

    def restore(self, cursor: dict[str, int]) -> None: ...


@dataclass(frozen=True)
class StepResult:
    """Of the whole step, over all processes: sums and counts by name, real tokens, floating-point operations, the
    gradient norm before clipping, the learning rate, seconds, and whether any process has been asked to stop."""

    sums: dict[str, float]
    counts: dict[str, float]
    tokens: int
    flops: float
    grad_norm: float
    lr: float
    seconds: float
    stop: bool = False


class Ahead:
    """Makes the next step's batches while this one is computed, in one thread; the data stays a pure function."""

    def __init__(self, data: BatchSource, options: TrainOptions, world: World, device: torch.device) -> None:
        self._data, self._steps, self._world = data, options.steps, world
        self._budget = micro_batch_tokens(options.micro_batch_tokens, device)
        self._pinned = device.type == "cuda"
        self._thread = ThreadPoolExecutor(1)
        self._next: tuple[int, Future[list[PackedBatch]]] | None = None

    def take(self, step: int) -> list[PackedBatch]:
        """The micro-batches of a step; the following one's are begun."""
        made = self._next[1] if self._next and self._next[0] == step else self._begin(step)
        batches = made.result()
        self._next = (step + 1, self._begin(step + 1)) if step + 1 < self._steps else None
        return batches

    def cursor_json(self, step: int) -> dict[str, int]:
        return self._thread.submit(self._data.cursor_json, step).result()

    def _begin(self, step: int) -> Future[list[PackedBatch]]:
        return self._thread.submit(self._make, step)

    def _make(self, step: int) -> list[PackedBatch]:
        batches = self._data.micro_batches(step, self._world.rank, self._world.size, self._budget)
        return [batch.pinned() for batch in batches] if self._pinned else batches


class _Sums(nn.Module):
    """A model and its objective as one module, which is compiled and shared out: packed batch → sums by name."""

    def __init__(self, model: Model, objective: Objective, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self._objective, self._dtype = model, objective, dtype

    def forward(self, batch: PackedBatch) -> dict[str, Tensor]:
        with torch.autocast(batch.input_ids.device.type, self._dtype, enabled=self._dtype != torch.float32):
            scores = self.model(batch)
        return self._objective.sums(scores, batch.targets)


class Stepper:
    """A model with its optimizer on its device: takes single steps, and knows nothing of runs."""

    def __init__(
        self, model: Model, objective: Objective, data: BatchSource, options: TrainOptions, world: World | None = None
    ) -> None:
        self.model, self.objective, self.options, self.world = model, objective, options, world or World()
        self.device = choose_device(options.device)
        self.dtype = choose_precision(options.precision, self.device)
        model.to(self.device).train()
        sums = _Sums(model, objective, self.dtype)
        if compiles(options, model.config, self.device):
            sums.compile(dynamic=True)
        sharded = options.parallel == "fsdp" and self.world.size > 1
        self._parallel = (
            Sharded(sums, model, self.world, self.device) if sharded else Replicated(sums, self.world, self.device)
        )
        self.optimizer = build_optimizer(model, options)
        self.data = Ahead(data, options, self.world, self.device)

    def step(self, step: int, stop: bool = False) -> StepResult:
        """One optimizer step over the micro-batches of step `step`. stop: this process has been asked to end the run.

        Raises UserError when the norm of the gradient is not finite, before the weights are changed, and when memory
        runs out.
        """
        began = time.perf_counter()
        batches = self.data.take(step)
        try:
            return self._step(step, batches, stop, began)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise UserError(_smaller_budget(batches)) from error
            raise

    def _step(self, step: int, batches: list[PackedBatch], stop: bool, began: float) -> StepResult:
        torch.manual_seed(int(mix(self.options.seed, step, self.world.rank)) >> 1)  # dropout
        counts, tokens, flops, stopping = self._totals(batches, stop)
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(batches, start=1):
            for name, value in self._forward_and_backward(batch, counts, number == len(batches)).items():
                sums[name] = sums[name] + value if name in sums else value
        norm = float(full_tensor(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip)))
        if not math.isfinite(norm):
            raise UserError(
                f"step {step + 1}: the gradient is not finite (norm {norm}); the weights and the last checkpoint are "
                f"from before it. go on with --precision float32, or begin another --out with a lower --lr (of "
                f"pretraining, `bothways info RUN --batch {step + 1}` shows the batch)"
            )
        lr = learning_rate(step, self.options)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        values = self.world.add(torch.stack([value.double() for value in sums.values()]).tolist(), self.device)
        by_name = dict(zip(sums, values, strict=True))
        return StepResult(by_name, counts, tokens, flops, norm, lr, time.perf_counter() - began, stopping)

    def _totals(self, batches: list[PackedBatch], stop: bool) -> tuple[dict[str, float], int, float, bool]:
        """Counts by name, tokens, FLOPs, and whether to stop: over all batches of all processes."""
        counts: dict[str, float] = defaultdict(float)
        for batch in batches:
            for name, count in self.objective.counts(batch.targets).items():
                counts[name] += count
        tokens = sum(batch.num_tokens for batch in batches)
        flops = sum(training_flops(self.model, batch) for batch in batches)
        *summed, tokens_sum, flops_sum, asked = self.world.add([*counts.values(), tokens, flops, stop], self.device)
        return dict(zip(counts, summed, strict=True)), int(tokens_sum), flops_sum, asked > 0

    def _forward_and_backward(self, batch: PackedBatch, counts: Mapping[str, float], last: bool) -> dict[str, Tensor]:
        with self._parallel.micro_batch(last) as sums_of:
            sums: dict[str, Tensor] = sums_of(batch.to(self.device))
            losses = [value / (counts[name] or 1) for name, value in sums.items() if name.endswith("loss")]
            # processes average their gradients, and the step wants their sum
            (torch.stack(losses).sum() * self.world.size).backward()
        return {name: value.detach() for name, value in sums.items()}


def _smaller_budget(batches: list[PackedBatch]) -> str:
    largest = max(batch.num_tokens for batch in batches)
    if all(batch.num_sequences == 1 for batch in batches):
        return f"out of memory with one sequence of {largest:,} tokens; choose a lower --sequence-length or --size"
    return (
        f"out of memory with {largest:,} tokens in one forward pass; --micro-batch-tokens {max(1, largest // 2)} "
        "halves that (the step stays the same, only its cut changes)"
    )
