"""A run that has not finished, as a model: the best epoch so far, or the last checkpoint.

A checkpoint of a run has the parameters by our names, in one file or in a file for each process, beside the optimizer's
state; RUN/start/ has config and tokenizer. `train/run.py` writes both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bothways.errors import UserError, warn_at_caller
from bothways.files import read_json

START = "start"  # the folder of a run that has config and tokenizer


class UnfinishedRunWarning(UserWarning):
    """The model that is used is of a run that has not finished; the message says which step, and how to go on."""


def is_unfinished(run: Path) -> bool:
    """Whether a directory is a run without its model."""
    return (run / "checkpoints").is_dir() and not (run / "model" / "config.json").exists()


def is_start(directory: Path) -> bool:
    """Whether a directory is the START of a run that has not finished."""
    return directory.name == START and is_unfinished(directory.parent)


def unfinished_model(run: Path) -> Path:
    """RUN/best, a model as others are, or RUN/start, whose weights are `last_parameters`. Warns which it is.

    Raises UserError where there is none yet.
    """
    steps = sorted((run / "checkpoints").glob("step-*"))
    best, start = run / "best", run / START
    if not (best / "config.json").exists() and not (steps and (start / "config.json").exists()):
        reason = "it was begun by an earlier Bothways" if steps else "it has no checkpoint yet"
        raise UserError(f"{run}: this run has not finished, and {reason}; {_go_on(run)}, and then it is a model")
    used, directory = ("best epoch so far", best) if (best / "config.json").exists() else ("last checkpoint", start)
    warn_at_caller(f"{run}: has not finished{_place(steps)}: its {used} is used; {_go_on(run)}", UnfinishedRunWarning)
    return directory


def last_parameters(run: Path) -> dict[str, Tensor]:
    """The parameters, by our names, of the newest checkpoint that can be read."""
    failures = []
    for path in sorted((run / "checkpoints").glob("step-*"), reverse=True):
        try:
            return read_parameters(path)
        except UserError as error:
            failures.append(str(error))
    raise UserError(f"{run}: no checkpoint can be read: {failures[0]}")


def read_parameters(checkpoint: Path) -> dict[str, Tensor]:
    """The parameters in a checkpoint, whole, whatever number of processes wrote it. Raises UserError for what cannot be
    read."""
    whole = checkpoint / "model.safetensors"
    try:
        return load_file(whole) if whole.exists() else _read_shards(checkpoint)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise UserError(f"{checkpoint}: {(str(error).splitlines() or [type(error).__name__])[0]}") from error


def _read_shards(checkpoint: Path) -> dict[str, Tensor]:
    import torch.distributed.checkpoint as dcp  # a second, which only sharded checkpoints are worth
    from torch.distributed.checkpoint.api import CheckpointException

    reader = dcp.HuggingFaceStorageReader(str(checkpoint))
    try:
        stored: dict[str, Any] = reader.read_metadata().state_dict_metadata
        # the optimizer's state is called PARAMETER/ENTRY
        sizes = {name: metadata.size for name, metadata in stored.items() if "/" not in name}
        tensors = {name: torch.empty(size) for name, size in sizes.items()}
        dcp.load(tensors, storage_reader=reader, no_dist=True)
    except CheckpointException as error:
        raise OSError(f"its shards cannot be read: {next(iter(error.failures.values()))[0]}") from error
    if not tensors:
        raise OSError("holds no parameters")
    return tensors


def _place(steps: list[Path]) -> str:
    """` (step 350 of 2,000)`, by the last checkpoint."""
    try:
        state = read_json(steps[-1] / "state.json")
        return f" (step {state['step']:,} of {state['data']['steps']:,})"
    except (UserError, KeyError, IndexError, TypeError, ValueError):
        return ""


def _go_on(run: Path) -> str:
    """How to go on with a run, by what it was begun with."""
    try:
        command = read_json(run / "run.json").get("command")
    except UserError:
        command = None
    return f"`{command}` goes on with it" if command else "the command that began it goes on with it"
