"""How weights lie in a file: float32, half of it, or int8 rows with a scale each; and a file that shares another's.

`bothways.json` says which: `storage`, and `base`, the name of a directory beside this one, whose tensors stand for
those that this one lacks. What is int8 is a matrix under its own name and its scales under NAME.scale, float32
`[rows]`: `weight[r] = int8[r] * scale[r]`, with the largest of a row at 127 or -127. In memory all of it is float32.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from bothways.checkpoint.names import NameTable
from bothways.checkpoint.weights import read_weights
from bothways.errors import UserError, closest
from bothways.files import hash_file, read_json
from bothways.model.config import EncoderConfig
from bothways.model.families import read_config
from bothways.model.families.base import Family

Storage = Literal["float32", "float16", "int8"]
STORAGES: tuple[Storage, ...] = ("float32", "float16", "int8")
STORAGE_KEYS = ("storage", "base", "base_weights")  # of bothways.json: of the file, not of the model

SCALE = ".scale"
LEAST_INT8_ROWS = 64  # smaller matrices, those of a classifier say, decide alone and take no room
ROWS_OF_PLACES = re.compile(r"position|token_type|wpe")  # tables that are added to every token's row
SAME_SIZES = (  # of a model and its base
    "model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings", "type_vocab_size",
)  # fmt: skip


def stored(weights: Mapping[str, Tensor], storage: Storage) -> dict[str, Tensor]:
    """Float32 tensors as a file has them.

    `int8`: matrices of at least 64 rows; tables of positions and segments are float16, all else float32.
    Raises UserError for numbers above what float16 holds.
    """
    tensors: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if storage == "int8" and weight.dim() == 2 and not ROWS_OF_PLACES.search(name):
            if len(weight) >= LEAST_INT8_ROWS:
                tensors[name], tensors[name + SCALE] = _int8_rows(weight)
                continue
        elif storage == "float16" or (storage == "int8" and weight.dim() == 2):
            tensors[name] = _half(name, weight)
            continue
        tensors[name] = weight
    return tensors


def _int8_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 `[rows, columns]` and scales `[rows]`; a row of zeros has the scale 1."""
    largest = weight.abs().amax(1)
    scale = torch.where(largest > 0, largest / 127, torch.ones_like(largest))
    return (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8), scale


def _half(name: str, weight: Tensor) -> Tensor:
    half = weight.half()
    if not torch.isfinite(half).all():
        raise UserError(f"{name} holds numbers above {torch.finfo(torch.float16).max:,.0f}; float16 has none")
    return half


def restored(tensors: Mapping[str, Tensor], directory: Path) -> dict[str, Tensor]:
    """A file's tensors, its int8 rows as float32; all else is left as it is, float16 too, which a model takes.

    Raises UserError for scales that do not fit their matrix.
    """
    weights: dict[str, Tensor] = {}
    scaled = {name for name, tensor in tensors.items() if tensor.dtype == torch.int8 and name + SCALE in tensors}
    for name, tensor in tensors.items():
        if name in scaled:
            scale = tensors[name + SCALE]
            if tensor.dim() != 2 or list(scale.shape) != [len(tensor)] or not scale.is_floating_point():
                shapes = f"{list(tensor.shape)} with scales {list(scale.shape)} of {scale.dtype}"
                raise UserError(f"{directory}: {name} is {shapes}, expected a matrix and a number for each row")
            weights[name] = tensor.float() * scale.float()[:, None]
        elif name.removesuffix(SCALE) not in scaled:
            weights[name] = tensor
    return weights


def read_stored(directory: Path, state: Mapping[str, Any], config: EncoderConfig, family: Family) -> dict[str, Tensor]:
    """The weights of a directory by Hugging Face's names, with those of its base for what it lacks.

    state: its bothways.json. Raises UserError as `read_weights`, for a storage that is not known, and for a base that
    is absent, is of other sizes, has a base itself, or has changed since.
    """
    path = directory / "bothways.json"
    storage = state.get("storage", "float32")
    if storage not in STORAGES:
        near = closest(storage, STORAGES)
        raise UserError(f"{path}: storage is {storage[:60]!a}{near}; read are {', '.join(STORAGES)}")
    weights = restored(read_weights(directory), directory)
    if "base" not in state:
        return weights
    base = base_directory(directory, state["base"])
    _require_base(path, base, state, config)
    table = NameTable(family, "encoder")  # whose spelling of names both files get: a bare encoder's have no prefix
    merged: dict[str, Tensor] = {}
    for tensors in (restored(read_weights(base), base), weights):
        modern = table.modern_names(tensors)
        merged.update({modern[name]: tensor for name, tensor in tensors.items()})
    return merged


def base_directory(directory: Path, base: str) -> Path:
    """Where the base of a directory is: beside it. Raises UserError for what is no plain name, or not there."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", base, re.ASCII):
        raise UserError(f"{directory}: base is {base[:60]!a}, expected the name of a directory beside it")
    found = directory.absolute().parent / base
    if not (found / "model.safetensors").is_file() or not (found / "config.json").is_file():
        raise UserError(f"{directory}: shares weights with {base!r}, which is not beside it: {found} is no model")
    return found


def base_fingerprint(base: Path) -> str:
    """Sixteen hexadecimal digits over the file of a base's weights."""
    return hash_file(base / "model.safetensors")[:16]


def _require_base(path: Path, base: Path, state: Mapping[str, Any], config: EncoderConfig) -> None:
    """Raises UserError where a base is not the one that the weights were stored beside."""
    if (base / "bothways.json").exists() and "base" in read_json(base / "bothways.json"):
        raise UserError(f"{path}: base is {base.name!r}, which shares weights with another itself")
    require_same_sizes(path, config, base)
    if state.get("base_weights") != base_fingerprint(base):
        raise UserError(f"{path}: the weights of its base {base.name!r} are others than those it was stored beside")


def require_same_sizes(path: Path, config: EncoderConfig, base: Path) -> None:
    """Raises UserError where a model's sizes are not those of its base."""
    other = read_config(read_json(base / "config.json"), base / "config.json")
    for name in SAME_SIZES:
        here, there = getattr(config, name, None), getattr(other, name, None)
        if here != there:
            raise UserError(f"{path}: its base {base.name!r} has {name} {there}, this model {here}")
