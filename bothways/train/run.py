"""A run's directory: metrics.jsonl, checkpoints to resume from, the model.

RUN/metrics.jsonl              one object a log step
RUN/checkpoints/step-00000100/ model.safetensors, optimizer.safetensors, state.json
RUN/model/                     the Hugging Face directory
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from bothways.errors import UserError
from bothways.files import read_json, replace_directory, require_writable, saying_what_failed, write_json, write_text

KEEP_CHECKPOINTS = 2
STATE = {"step", "tokens", "seconds", "window", "cursor", "data"}  # what state.json holds


class RunDirectory:
    """Reads and writes a run; every write is complete or absent."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        require_writable(self.path)
        for name in ("config.json", "manifest.json"):
            if (self.path / name).exists():
                raise UserError(
                    f"{path} is a model's or a store's directory ({name}), not a run's; choose another --out"
                )
        self.metrics_path = self.path / "metrics.jsonl"
        self.model_path = self.path / "model"

    def log(self, values: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with saying_what_failed(self.metrics_path), self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl; one cut off or garbled by a crash is left out."""
        if not self.metrics_path.exists():
            return []
        found = []
        for line in self.metrics_path.read_text(encoding="utf-8", errors="replace").split("\n"):
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return [line for line in found if isinstance(line, dict) and "step" in line]

    def rewind_metrics(self, step: int) -> None:
        """Drop what was logged after `step`: the resumed run will log it again."""
        kept = [json.dumps(line) + "\n" for line in self.metrics() if line["step"] <= step]
        write_text(self.metrics_path, "".join(kept))

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted((self.path / "checkpoints").glob("step-*"))

    def save_checkpoint(self, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> Path:
        """Write what resuming needs, then delete all but the newest few."""
        path = self.path / "checkpoints" / f"step-{state['step']:08d}"
        with replace_directory(path) as partial:
            save_file(_parameters(model), partial / "model.safetensors")
            save_file(_optimizer_tensors(model, optimizer), partial / "optimizer.safetensors")
            write_json(partial / "state.json", state)
        for old in self.checkpoints()[:-KEEP_CHECKPOINTS]:
            shutil.rmtree(old, ignore_errors=True)
        return path

    def restore(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, expected: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Load the newest checkpoint that can be read into model and optimizer; None when there is none.

        An unreadable one is passed over for the one before it, and listed under "skipped" in the state returned.
        Raises UserError when the checkpoint is of a run that differs from `expected`, naming what and both values.
        """
        skipped = []
        for path in reversed(self.checkpoints()):
            try:
                state = read_json(path / "state.json")
                missing = STATE - set(state)
                if missing:
                    raise UserError(f"state.json lacks {', '.join(sorted(missing))}")
                parameters = load_file(path / "model.safetensors")
                tensors = load_file(path / "optimizer.safetensors")
            except (SafetensorError, OSError, UserError) as error:
                skipped.append(f"{path}: {str(error).splitlines()[0]}")
                continue
            self._require_same(state["data"], expected)
            ours = _parameters(model)
            with torch.no_grad():
                for name, parameter in ours.items():
                    parameter.copy_(parameters[name])
            _load_optimizer(model, optimizer, tensors)
            return {**state, "skipped": skipped}
        if skipped:
            raise UserError(f"no checkpoint can be read: {skipped[0]}; choose another --out to begin anew")
        if self.model_path.exists():
            raise UserError(f"{self.path} holds a model but no checkpoint to go on from; choose another --out")
        return None

    def _require_same(self, there: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        for name, value in expected.items():
            if there.get(name) != value:
                raise UserError(
                    f"{self.path} holds a run with {name} {there.get(name)}, now asked for {value}; "
                    "choose another --out, or give the run's own options to resume it"
                )


def _parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters by name, a tied one once."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            tensors[f"{name}/{key}"] = value
    return tensors


def _load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    named = dict(model.named_parameters())
    for name, value in tensors.items():
        parameter_name, _, key = name.rpartition("/")
        parameter = named[parameter_name]
        optimizer.state[parameter][key] = value.to(parameter.device)
