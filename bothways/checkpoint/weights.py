"""Where a model's files are, a directory or the hub, and the tensors in them. Nothing is ever unpickled."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bothways.errors import UserError
from bothways.files import read_json

MODEL_FILES = ("config.json", "tokenizer*", "vocab.txt", "special_tokens_map.json", "bothways.json")
SENTENCE_FILES = ("modules.json", "sentence_bert_config.json", "*/config.json")  # of sentence-transformers


def find_model(path_or_hub_id: str | Path) -> Path:
    """The directory of a model: itself, `model/` in a run's directory, or a download from the hub.

    Raises UserError where it is none of them, and for a run that has not finished.
    """
    if not isinstance(path_or_hub_id, str | Path):
        raise UserError(f"{path_or_hub_id!r}: expected a model's directory or its name on the hub")
    path = Path(path_or_hub_id)
    if path.is_dir():
        run = path / "model"
        if not (path / "config.json").exists() and (run / "config.json").exists():
            return run
        if not (path / "config.json").exists() and (path / "checkpoints").is_dir():
            raise UserError(f"{path}: this run has not finished; the command that began it goes on with it")
        return path
    if path.exists():
        raise UserError(f"{path} is a file; a model is a directory with config.json and model.safetensors")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(path_or_hub_id)):
        raise UserError(f"{path}: no such model directory")
    from huggingface_hub import snapshot_download

    wanted = [*MODEL_FILES, *SENTENCE_FILES]
    try:
        snapshot = Path(snapshot_download(str(path_or_hub_id), allow_patterns=[*wanted, "model.safetensors*"]))
        if not any(snapshot.glob("model.safetensors*")):
            snapshot_download(str(path_or_hub_id), allow_patterns=["pytorch_model.bin"])
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path}: no such model directory, and the hub gave no model of this name ({reason})"
        ) from error
    return snapshot


def read_weights(directory: Path) -> dict[str, Tensor]:
    """Every tensor of `model.safetensors`, of its shards, or of a `pytorch_model.bin` that holds tensors and no code.

    Raises UserError for files that are missing, damaged, or anything else.
    """
    index = directory / "model.safetensors.index.json"
    binary = directory / "pytorch_model.bin"
    try:
        if index.exists():
            weight_map = read_json(index).get("weight_map")
            if not isinstance(weight_map, dict):
                raise UserError(f"{index}: has no weight_map")
            shards = sorted(set(weight_map.values()))
            return {name: tensor for shard in shards for name, tensor in load_file(directory / shard).items()}
        if (directory / "model.safetensors").exists():
            return load_file(directory / "model.safetensors")
    except (SafetensorError, OSError, RuntimeError) as error:
        raise UserError(f"{directory}: the weights cannot be read: {_first_line(error)}") from error
    if not binary.exists():
        raise UserError(f"{directory}: not a model directory: model.safetensors and pytorch_model.bin are both missing")
    try:
        content = torch.load(binary, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle.UnpicklingError and kin: never retried without weights_only
        raise UserError(f"{binary}: not a plain file of tensors, refused: {_first_line(error)}") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{binary}: not a plain file of named tensors, refused")
    return content


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
