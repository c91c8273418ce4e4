"""One optimizer step: forward and backward passes over the micro-batches of step k, clipping, the update.

Losses are divided by the counts of the whole step over all processes, so a step without dropout is the same, up to
rounding, however it was cut or shared out. Dropout is drawn in the order of the micro-batches, from (seed, step, rank).
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bothways.batch import PackedBatch
from bothways.errors import UserError, option
from bothways.hardware import choose_device, is_out_of_memory, memory_errors, micro_batch_tokens
from bothways.model.heads import Model
from bothways.precision import choose_precision
from bothways.prefetch import prefetch
from bothways.tasks.base import Objective
from bothways.train.distributed import Replicated, Sharded, World, full_tensor
from bothways.train.dropout_seed import seed_dropout
from bothways.train.flops import training_flops
from bothways.train.optimizer import build_optimizer
from bothways.train.options import TrainOptions, compiles
from bothways.train.schedule import learning_rate


class BatchSource(Protocol):
    """Where the loop's batches come from: a pure function of the step."""

    identity: dict[str, Any]  # what a resumed run must share, by name

    def micro_batches(self, step: int, rank: int, world_size: int, token_budget: int) -> list[PackedBatch]:
        """This rank's share of step `step` (from 0), each batch of at most `token_budget` tokens where it can be; rank
        0 has one always."""
        ...

    def cursor_json(self, step: int) -> dict[str, int]:
        """What a checkpoint keeps, so that step `step` need not be searched for."""
        ...

    def restore(self, cursor: dict[str, int]) -> None:
        """Go on from a checkpoint's cursor."""
        ...


@dataclass(frozen=True)
class StepResult:
    """What a whole step came to, over all processes.

    sums, counts: by name, as `Objective.sums` and `Objective.counts`. tokens: without padding, as there is none.
    flops: floating-point operations (`train.flops`). grad_norm: before clipping. lr: the learning rate. stop: whether
    any process has been asked to stop.
    """

    sums: dict[str, float]
    counts: dict[str, float]
    tokens: int
    flops: float
    grad_norm: float
    lr: float
    seconds: float = 0.0
    stop: bool = False


class StepAbandoned(Exception):  # noqa: N818 — no error, but a wish
    """What `on_micro_batch` raises to give a step up; the model and its optimizer are then as they were before it."""


OnMicroBatch = Callable[[int, int], None]  # tokens of this process's share of the step: done, and in all


def no_micro_batch(done: int, tokens: int) -> None:
    """An `OnMicroBatch` that lets the step go on."""


@dataclass(frozen=True)
class _StepShare:
    """A process's batches of a step. weight: 1; 0 for the batch of another process, which is run by one that has none,
    as all exchange gradients. cursor: where the step begins."""

    batches: list[PackedBatch]
    weight: int
    cursor: dict[str, int]


class _StepBatches:
    """A process's batches of each step, made one step ahead by a thread of their own."""

    def __init__(self, data: BatchSource, options: TrainOptions, world: World, device: torch.device) -> None:
        self._data, self._steps, self._world = data, options.steps, world
        self._budget = micro_batch_tokens(options.micro_batch_tokens, device)
        self._pinned = device.type == "cuda"
        self._data_lock = threading.Lock()  # a plan keeps what it made last, and is asked by two threads
        self._coming: Iterator[_StepShare] = iter(())
        self._next_step = -1
        self._cursor: tuple[int, dict[str, int]] | None = None  # of the step that was taken last

    def take(self, step: int) -> _StepShare:
        """The micro-batches of a step; the following step's are begun."""
        if step != self._next_step:
            self._coming = prefetch(self._make, range(step, max(step + 1, self._steps)))
        share = next(self._coming)
        self._next_step, self._cursor = step + 1, (step, share.cursor)
        return share

    def cursor_json(self, step: int) -> dict[str, int]:
        """As `BatchSource.cursor_json`. The plan is past a step that was given up, and would walk back to it."""
        if self._cursor is not None and self._cursor[0] == step:
            return self._cursor[1]
        with self._data_lock:
            return self._data.cursor_json(step)

    def _make(self, step: int) -> _StepShare:
        with self._data_lock:
            own = self._data.micro_batches(step, self._world.rank, self._world.size, self._budget)
            batches = own or self._data.micro_batches(step, 0, self._world.size, self._budget)[-1:]
            cursor = self._data.cursor_json(step)
        batches = [batch.pinned() for batch in batches] if self._pinned else batches
        return _StepShare(batches, int(bool(own)), cursor)


class _Sums(nn.Module):
    """A model and its objective as a single module, which is shared out: packed batch → sums by name."""

    def __init__(self, model: Model, objective: Objective, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self._objective, self._dtype = model, objective, dtype

    def forward(self, batch: PackedBatch) -> dict[str, Tensor]:
        with torch.autocast(batch.input_ids.device.type, self._dtype, enabled=self._dtype != torch.float32):
            scores = self.model(batch)
        return self._objective.sums(scores, batch.targets)


class Stepper:
    """A model with its optimizer on its device: takes single steps, and knows nothing of runs.

    data: also tells what a resumed run must share. world: the processes that share each step.
    """

    def __init__(
        self, model: Model, objective: Objective, data: BatchSource, options: TrainOptions, world: World | None = None
    ) -> None:
        self.model, self.objective, self.options, self.world = model, objective, options, world or World()
        self.device = choose_device(options.device)
        self.dtype = choose_precision(options.precision, self.device)
        with memory_errors(self.device, "the model"):
            model.to(self.device).train()
        if compiles(options, model.config, self.device):
            _compile_layers(model)
        sums = _Sums(model, objective, self.dtype)
        sharded = self._sharded = options.parallel == "fsdp" and self.world.size > 1
        self._parallel = (
            Sharded(sums, model, self.world, self.device) if sharded else Replicated(sums, self.world, self.device)
        )
        self.optimizer = build_optimizer(model, options)
        self.data, self._batches = data, _StepBatches(data, options, self.world, self.device)

    def step(self, step: int, stop: bool = False, on_micro_batch: OnMicroBatch = no_micro_batch) -> StepResult:
        """One optimizer step over the micro-batches of step `step`. stop: this process has been asked to end the run.
        on_micro_batch: called between two micro-batches; it may raise StepAbandoned where there is one process only.

        Raises UserError when the norm of the gradient is not finite, before the weights are changed, and when memory
        runs out.
        """
        began = time.perf_counter()
        share = self._batches.take(step)
        try:
            result = self._step(step, share, stop, on_micro_batch)
            return replace(result, seconds=time.perf_counter() - began)
        except StepAbandoned:
            self.optimizer.zero_grad(set_to_none=True)
            raise
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise UserError(_smaller_budget(share.batches)) from error
            raise

    def cursor_json(self, step: int) -> dict[str, int]:
        """As `BatchSource.cursor_json`; to be asked here, as the next step's batches may be in the making."""
        return self._batches.cursor_json(step)

    def _step(self, step: int, share: _StepShare, stop: bool, on_micro_batch: OnMicroBatch) -> StepResult:
        batches = share.batches
        # 1. dropout of this step and rank
        seed_dropout(self.options.seed, step, self.world.rank)
        # 2. counts over all micro-batches of all ranks, by which losses are divided
        counts, tokens, flops, stopping = self._totals(share, stop)
        # 3. forward and backward for each micro-batch; ranks exchange gradients in the last backward pass
        sums: dict[str, Tensor] = {}
        done, own = 0, sum(batch.num_tokens for batch in batches)
        with contextlib.nullcontext() if self._sharded else _kept_casts():
            for number, batch in enumerate(batches, start=1):
                if number > 1:
                    on_micro_batch(done, own)
                last = number == len(batches)
                for name, value in self._forward_and_backward(batch, counts, share.weight, last).items():
                    sums[name] = sums[name] + value if name in sums else value
                done += batch.num_tokens
        # 4. clipping, which also finds what is not finite before it reaches the weights
        length = full_tensor(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip))
        # a GPU is waited for here and nowhere else: it updates the weights while the next step is handed to it
        norm, *values = torch.stack([value.double() for value in (length, *sums.values())]).tolist()
        if not math.isfinite(norm):
            raise UserError(_not_finite(step, norm))
        # 5. the schedule's learning rate
        lr = learning_rate(step, self.options)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        # 6. the update
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        # 7. sums over all ranks, for the log
        by_name = dict(zip(sums, self.world.add(values, self.device), strict=True))
        return StepResult(by_name, counts, tokens, flops, norm, lr, stop=stopping)

    def _totals(self, share: _StepShare, stop: bool) -> tuple[dict[str, float], int, float, bool]:
        """Counts by name, tokens, FLOPs, and whether to stop: over all batches of all processes."""
        counts: dict[str, float] = defaultdict(float)
        for batch in share.batches:
            for name, count in self.objective.counts(batch.targets).items():
                counts[name] += share.weight * count
        tokens = share.weight * sum(batch.num_tokens for batch in share.batches)
        flops = share.weight * sum(training_flops(self.model, batch) for batch in share.batches)
        *summed, tokens_sum, flops_sum, asked = self.world.add([*counts.values(), tokens, flops, stop], self.device)
        return dict(zip(counts, summed, strict=True)), int(tokens_sum), flops_sum, asked > 0

    def _forward_and_backward(
        self, batch: PackedBatch, counts: Mapping[str, float], weight: int, last: bool
    ) -> dict[str, Tensor]:
        with self._parallel.micro_batch(sync_gradients=last) as sums_of:
            sums: dict[str, Tensor] = sums_of(batch.to(self.device))
            weights = self.objective.loss_weights
            losses = [weights.get(name, 1.0) * sums[name] / (counts[name] or 1) for name in self.objective.losses]
            # processes average their gradients, and the step wants their sum
            (torch.stack(losses).sum() * (weight * self.world.size)).backward()
        return {name: weight * value.detach() for name, value in sums.items()}


def _compile_layers(model: Model) -> None:
    """Let each layer be a graph of its own to torch.compile: as all have the same code, two graphs are compiled, of
    which one is the last layer's, however many layers there are. The whole step as one graph took more than 40 s for
    BERT-base on an H200 before its first step."""
    for layer in model.encoder.layers:
        layer.compile(dynamic=True)


@contextlib.contextmanager
def _kept_casts() -> Iterator[None]:
    """Within it autocast casts a weight once, not once in each micro-batch: its cache is emptied where the outermost
    context ends. The weights must not change meanwhile, and all of the casts are in memory."""
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()


def _not_finite(step: int, norm: float) -> str:
    return (
        f"step {step + 1}: the gradient is not finite (norm {norm}); the weights and the last checkpoint are "
        f"from before it. go on with {option('precision', 'float32')}, or begin another {option('out')} with a lower "
        f"{option('lr')} (of pretraining, `bothways info RUN` with {option('batch', step + 1)} shows the batch)"
    )


def _smaller_budget(batches: list[PackedBatch]) -> str:
    largest = max(batch.num_tokens for batch in batches)
    if all(batch.num_sequences == 1 for batch in batches):
        lower = f"{option('sequence_length')} or {option('size')}"
        return f"out of memory with one sequence of {largest:,} tokens; choose a lower {lower}"
    return (
        f"out of memory with {largest:,} tokens in one forward pass; "
        f"{option('micro_batch_tokens', max(1, largest // 2))} halves that (the step stays the same, "
        "only its cut changes)"
    )
