"""Several processes on a run, started by `torchrun`: who they are, how they add up, how the model is shared out.

Without `torchrun` there is one process, and nothing here costs anything. Every process makes its own share of the
plan's k-th step; gradients, losses and counts are added over all, so the step is the same however many there are.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from bothways.errors import ProcessError, UserError
from bothways.model.heads import Model
from bothways.progress import under_torchrun

_Value = TypeVar("_Value")
_joins = itertools.count()  # all processes join as often, once for each job


@dataclass(frozen=True)
class World:
    """rank: this process among all, from 0. size: how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.rank == 0

    @property
    def first_of_machine(self) -> bool:
        """Whether this process is the one that works for all of its machine."""
        return self.size == 1 or os.environ.get("LOCAL_RANK", "0") == "0"

    def add(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Each value summed over all processes, in float64."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def gather(self, value: _Value) -> list[_Value]:
        """Each process's value, in order of rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def gather_rows(self, own: Tensor, rows: Sequence[int]) -> list[Tensor]:
        """Each process's rows, `[rows[r], …]` of rank r, without gradients. own: `[rows[self.rank], …]`."""
        padded = own.new_zeros(max(rows), *own.shape[1:])  # a collective takes tensors of one size
        padded[: len(own)] = own
        found = [torch.empty_like(padded) for _ in rows]
        dist.all_gather(found, padded)
        return [tensor[:number] for tensor, number in zip(found, rows, strict=True)]

    def require_same(self, **values: str) -> None:
        """Raises UserError, on every process, where one has another value than the main one: another file on another
        machine. values: fingerprints by what they are of."""
        theirs = self.gather(values)
        for rank, found in enumerate(theirs):
            if differs := [name for name in values if found[name] != theirs[0][name]]:
                what = differs[0].replace("_", " ")
                raise UserError(f"rank {rank} of {self.size} reads another {what} than rank 0; give all the same")

    def agree(self, value: Any) -> Any:
        """The main process's value, on all of them. value: what JSON has."""
        return json.loads(self.gather(json.dumps(value) if self.main else "")[0])

    def wait(self) -> None:
        """Return when every process has called this."""
        if self.size > 1:
            dist.barrier()


@contextlib.contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """Join the other processes of this `torchrun`, by NCCL on GPUs and gloo on CPUs; without it a world of one.

    Raises UserError where the processes do not find one another, and in a process that has lost the others.
    """
    if not under_torchrun():
        yield World()
        return
    joined = not dist.is_initialized()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if joined:
        try:
            _join(device)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"torchrun: the processes did not find one another: {_first_line(error)}") from error
    world = World(dist.get_rank(), dist.get_world_size())
    try:
        yield world
    except RuntimeError as error:
        if world.size > 1 and _lost_the_others(error):
            raise ProcessError(
                f"rank {world.rank} of {world.size} lost the other processes ({_first_line(error)}); the "
                "last checkpoint is intact, and the same command goes on from it (torchrun's max-restarts does so by "
                "itself)"
            ) from error
        raise
    finally:
        if joined and dist.is_initialized():
            with contextlib.suppress(RuntimeError):
                dist.destroy_process_group()


def _join(device: torch.device) -> None:
    """Find the other processes.

    `torchrun` offers the same store to every job of a process, one after another, and again after a restart. It still
    has the addresses that are no longer valid, so each job, and on a single machine each attempt, looks under a name of
    its own. Several machines count their restarts
    apart; there `TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1` makes torchrun begin with a new store.
    """
    store, rank, size = next(dist.rendezvous("env://"))
    store = dist.PrefixStore(f"job-{next(_joins)}", store)
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
        store = dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    on_gpu = device.type == "cuda"
    dist.init_process_group(
        "nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=size, device_id=device if on_gpu else None
    )


def _lost_the_others(error: BaseException) -> bool:
    said = str(error).lower()
    signs = ("connection closed", "connection reset", "connection refused", "broken pipe", "timed out", "timeout")
    return isinstance(error, dist.DistNetworkError) or any(sign in said for sign in signs)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


class Replicated:
    """Distributed data parallel (Li et al. 2020): the whole model on each process; gradients are averaged while the
    backward pass of the step's last micro-batch still runs."""

    def __init__(self, module: nn.Module, world: World, device: torch.device) -> None:
        self.module: nn.Module = module
        if world.size > 1:
            ids = [device.index or 0] if device.type == "cuda" else None
            self.module = DistributedDataParallel(module, device_ids=ids, gradient_as_bucket_view=True)

    @contextlib.contextmanager
    def micro_batch(self, sync_gradients: bool) -> Iterator[nn.Module]:
        """The module to call for a micro-batch. sync_gradients: processes exchange gradients in its backward pass."""
        if sync_gradients or not isinstance(self.module, DistributedDataParallel):
            yield self.module
            return
        with self.module.no_sync():
            yield self.module


class Sharded:
    """Fully sharded data parallel (`fully_shard`): parameters, gradients and optimizer state are cut by rows, a shard
    for each process; a layer is put together when it is needed."""

    def __init__(self, module: nn.Module, model: Model, world: World, device: torch.device) -> None:
        mesh = init_device_mesh(device.type, (world.size,))
        for layer in model.encoder.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        self.module = module

    @contextlib.contextmanager
    def micro_batch(self, sync_gradients: bool) -> Iterator[nn.Module]:
        """As `Replicated.micro_batch`."""
        for module in self.module.modules():
            if isinstance(module, FSDPModule):
                module.set_requires_gradient_sync(sync_gradients)
                break  # the outermost module tells the others
        yield self.module


def reshard(model: nn.Module) -> None:
    """Free the parameters that an evaluation put together: after a forward pass without a backward pass the outermost
    parameters of a sharded model stay whole, and are not those that the optimizer knows."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def full_tensor(tensor: Tensor) -> Tensor:
    """A sharded tensor put together on every process; any other tensor as it is. All processes must call it."""
    gather: Any = getattr(tensor, "full_tensor", None)
    return gather() if gather is not None else tensor
