"""A run's directory: metrics.jsonl, checkpoints to resume from, the model.

RUN/run.json                   what it was started with: the files, the options, the command
RUN/start/                     config and tokenizer, with which its last checkpoint is a model until it has finished
RUN/metrics.jsonl              an object for each log step
RUN/checkpoints/step-00000100/ model.safetensors, optimizer.safetensors, state.json; of a sharded run, one
                               safetensors file for each process instead of the first two
RUN/model/                     the Hugging Face directory; while fine-tuning goes on, RUN/best/ is the best so far
RUN/evaluation.json            of fine-tuning: the best epoch's figures; RUN/predictions.csv: of each evaluation row
RUN/report.html                by the command line: curves, figures, where it comes from

Behind a URL a run is what its mirror on this machine was after the last checkpoint (`mirrors.py`).
A checkpoint of any number of processes, sharded or not, is read by any other number.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor

from bothways.checkpoint.hugging_face import Checkpoint, write_all_but_weights
from bothways.checkpoint.unfinished import START
from bothways.errors import UserError, option
from bothways.files import (
    read_json,
    refuse_foreign_files,
    replace_directory,
    replace_with,
    require_writable,
    to_json,
    user_errors,
    write_json,
    write_text,
)
from bothways.mirrors import OutputMirror
from bothways.outputs import begin_anew, discard, made_otherwise
from bothways.remote_files import local_path, url_of
from bothways.train.checkpoint_shards import failure_reason, forget_shards, save_shards
from bothways.train.distributed import World
from bothways.train.optimizer import CombinedOptimizer
from bothways.train.run_changes import LENGTH_OPTIONS, run_changes

STATE_KEYS = {"step", "tokens", "seconds", "window", "cursor", "data"}  # of state.json

# What a run's directory may hold: what `--overwrite` removes.
RUN_FILES = (
    "run.json", START, "metrics.jsonl", "checkpoints", "model", "best", "evaluation.json", "predictions.csv",
    "report.html", "tensorboard", "trace.json",
)  # fmt: skip


class RunDirectory:
    """Reads and writes a run; every write is complete or absent. Of several processes only the main one writes.

    overwrite: `begin` removes the run that is there. Raises UserError for a directory of something else.
    """

    def __init__(self, path: str | Path, world: World | None = None, *, overwrite: bool = False) -> None:
        self.world = world or World()
        url = url_of(path)
        self._mirror = None if url is None else OutputMirror(url, RUN_FILES)
        self.path = local_path(path) if self._mirror is None else self._mirror.path
        self._writes = self.world.main
        self.overwrites = overwrite and not _is_restarted()
        self._asked: dict[str, Any] = {}
        self._start: Checkpoint | None = None
        if self._mirror is not None:
            if self.world.first_of_machine:
                self._mirror.pull(to_write=self._writes, only_ours=overwrite and not _is_restarted())
            self.world.wait()
        if self._writes:
            require_writable(self.path)
            if self.overwrites:
                refuse_foreign_files(self.path, RUN_FILES)
        for name in ("config.json", "manifest.json"):
            if (self.path / name).exists():
                raise UserError(
                    f"{path} is a model's or a store's directory ({name}), not a run's; choose another {option('out')}"
                )
        self.metrics_path = self.path / "metrics.jsonl"
        self.model_path = self.path / "model"

    def begin(self, described: dict[str, Any], checkpoint: Checkpoint) -> None:
        """Write what the run is started with, unless it has a checkpoint to go on from. All processes must call it.

        described: run.json; "command" is the command line, "options" and "task_options" are by name, "inputs" are
        `file_record`s by option. checkpoint: of the model at the start, whose weights are not written.
        """
        self._asked, self._start = described, checkpoint
        if self._writes and self._mirror is not None:
            forget_shards(self._mirror.url)
        if self._writes and self.overwrites:
            discard(self.path, RUN_FILES)
        if self._writes and not self.checkpoints():
            self._write_start()
            write_json(self.path / "run.json", described)
            self.publish()
        self.world.wait()

    def publish(self) -> None:
        """Bring what is behind the run's URL up to what is here; a run in a directory of this machine has none."""
        if self._writes and self._mirror is not None:
            self._mirror.push()

    def _write_start(self) -> None:
        assert self._start is not None
        with replace_directory(self.path / START) as directory:
            write_all_but_weights(self._start, directory)

    def described(self) -> dict[str, Any]:
        """What `begin` wrote; empty where run.json is not there."""
        path = self.path / "run.json"
        return read_json(path) if path.exists() else {}

    def go_on(self) -> None:
        """Write down the length that is asked for now, as the run's own, and what an earlier Bothways did not write.

        To be called when the run is known to be the one that is asked for.
        """
        if self._writes and self._start is not None and not (self.path / START).exists():
            self._write_start()
        there = self.described()
        if not self._writes or "options" not in there:
            return
        before, asked = there["options"], self._asked["options"]
        changed = {name: asked[name] for name in LENGTH_OPTIONS if asked.get(name) != before.get(name)}
        if changed:
            options = {**before, **changed}
            write_json(self.path / "run.json", {**there, "command": self._asked["command"], "options": options})

    def reopen(self) -> None:
        """A finished run goes on. Its model is the last checkpoint's, which is there; where epochs were measured it is
        the best one so far."""
        if not self._writes or not self.model_path.exists():
            return
        if (self.path / "evaluation.json").exists():
            replace_with(self.model_path, self.path / "best")
        else:
            shutil.rmtree(self.model_path)

    def log(self, values: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        if not self._writes:
            return
        with user_errors(self.metrics_path), self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(to_json(values) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl, without figures that were not finite; a line that a crash cut off or garbled is
        left out."""
        return [{name: value for name, value in line.items() if value is not None} for line in self._metrics_lines()]

    def _metrics_lines(self) -> list[dict[str, Any]]:
        if not self.metrics_path.exists():
            return []
        found = []
        for line in self.metrics_path.read_text(encoding="utf-8", errors="replace").split("\n"):
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return [line for line in found if isinstance(line, dict) and "step" in line]

    def rewind_metrics(self, step: int) -> None:
        """Drop what was logged after `step`: the resumed run will log it again."""
        if not self._writes:
            return
        kept = [to_json(line) + "\n" for line in self._metrics_lines() if line["step"] <= step]
        write_text(self.metrics_path, "".join(kept))

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted((self.path / "checkpoints").glob("step-*"))

    def goes_on(self) -> bool:
        """Whether there is a checkpoint to go on from, which is not to be overwritten."""
        return not self.overwrites and bool(self.checkpoints())

    def save_checkpoint(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | CombinedOptimizer,
        state: dict[str, Any],
        world: World,
        keep: int,
    ) -> Path:
        """Write what resuming needs, then delete all but the newest `keep` checkpoints. All processes must call it.

        state: what `STATE_KEYS` name. Raises UserError where it cannot be written; the checkpoint before is intact.
        """
        path = self.path / "checkpoints" / f"step-{state['step']:08d}"
        parameters, tensors = _parameters(model), _optimizer_tensors(model, optimizer)
        sharded = any(isinstance(tensor, DTensor) for tensor in parameters.values())
        url = None if self._mirror is None else self._mirror.url
        if not world.main:
            if sharded:
                save_shards(path, {**parameters, **tensors}, world, url)
            world.wait()
            return path
        with replace_directory(path) as partial:
            if sharded:
                save_shards(path, {**parameters, **tensors}, world, url)
            else:
                save_file(parameters, partial / "model.safetensors")
                save_file(tensors, partial / "optimizer.safetensors")
            write_json(partial / "state.json", state)
        for old in self.checkpoints()[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
        self.publish()
        world.wait()
        return path

    def restore(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | CombinedOptimizer,
        identity_at: Callable[[int], Mapping[str, Any]],
        world: World | None = None,
    ) -> dict[str, Any] | None:
        """Load the newest checkpoint that every process can read into model and optimizer; None when there is none.

        identity_at: what the run must share with the checkpoint, were it of that many steps.

        An unreadable checkpoint is passed over for the checkpoint before it, and listed under "skipped" in the state
        returned. All processes must call it; the main process says which checkpoints there are.
        Raises UserError when the checkpoint is of a run that differs, and says in which options and files.
        """
        world = world or World()
        names = world.gather(json.dumps([path.name for path in self.checkpoints()]))[0]
        skipped: list[str] = []
        for name in reversed(json.loads(names)):
            path = self.path / "checkpoints" / name
            state, failure = _attempt(_read_state, world, path / "state.json")
            if state is not None:
                self._require_same(state["data"], identity_at(state["data"]["steps"]))
                tensors, failure = _attempt(_read_tensors, world, path, model)
                if tensors is not None:
                    _load(model, optimizer, tensors)
                    return {**state, "skipped": skipped}
            skipped.append(f"{path}: {failure}")
        if skipped:
            raise UserError(f"no checkpoint can be read: {skipped[0]}; {begin_anew()}")
        if self.model_path.exists():
            raise UserError(f"{self.path} holds a model but no checkpoint to go on from; {begin_anew()}")
        return None

    def _require_same(self, there: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        """Raises UserError where two runs are not the same, with what a person did otherwise."""
        if changes := run_changes(there, expected, self.described(), self._asked):
            raise made_otherwise(self.path, "a run", changes)


def is_pretraining_run(path: Path) -> bool:
    """Whether a directory is a run of pretraining: its run.json names a store."""
    return (path / "run.json").exists() and "store" in read_json(path / "run.json")


def _is_restarted() -> bool:
    """Whether `torchrun` has started this process again, which is to go on with what it has begun."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def _parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters by name; a parameter that is tied to another is there once."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _optimizer_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer | CombinedOptimizer
) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            tensors[f"{name}/{key}"] = value
    return tensors


class UnreadableError(Exception):
    """A directory that is no checkpoint, or a torn one."""


Read = TypeVar("Read")


def _attempt(read: Callable[..., Read], world: World, *arguments: Any) -> tuple[Read | None, str]:
    """What `read` gave; or None and the reason, where any process could not read."""
    result, failure = None, ""
    try:
        result = read(*arguments)
    except (SafetensorError, OSError, UnreadableError, CheckpointException) as error:
        failure = failure_reason(error)
    failures = [failure for failure in world.gather(failure) if failure]
    return (None, failures[0]) if failures else (result, "")


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = read_json(path)
    except UserError as error:
        raise UnreadableError(str(error)) from error
    missing = STATE_KEYS - set(state)
    if missing:
        raise UnreadableError(f"state.json lacks {', '.join(sorted(missing))}")
    return state


def _read_tensors(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """A checkpoint's tensors, each sharded as its parameter is now, however it was sharded when it was written."""
    reader = dcp.HuggingFaceStorageReader(str(path))
    stored = reader.read_metadata().state_dict_metadata
    parameters = _parameters(model)
    kept = {key.rpartition("/")[0] for key in stored}
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    without_state = [name for name in trained if name not in kept]
    if without_state:
        raise UnreadableError(f"lacks the optimizer's state of {without_state[0]}")
    tensors: dict[str, Tensor] = {name: torch.empty_like(parameter) for name, parameter in parameters.items()}
    for key, metadata in stored.items():
        name = key.rpartition("/")[0]
        if name:
            like = parameters[name]
            size = getattr(metadata, "size", torch.Size())
            tensors[key] = torch.empty_like(like) if size == like.shape else torch.empty(size)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # a single process is meant
        dcp.load(tensors, storage_reader=reader, no_dist=not dist.is_initialized())
    return tensors


def _load(model: nn.Module, optimizer: torch.optim.Optimizer | CombinedOptimizer, tensors: dict[str, Tensor]) -> None:
    named = dict(model.named_parameters())
    with torch.no_grad():
        for key, value in tensors.items():
            name, _, entry = key.rpartition("/")
            if name:
                optimizer.state[named[name]][entry] = value.to(named[name].device)
            else:
                named[key].copy_(value)
