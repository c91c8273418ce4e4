"""Writing a model small: in a storage of fewer bits, without what another directory beside it holds already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from bothways.checkpoint.hugging_face import Checkpoint, name_table, write_all_but_weights
from bothways.checkpoint.names import NameTable
from bothways.checkpoint.storage import (
    SCALE,
    STORAGES,
    Storage,
    base_directory,
    base_fingerprint,
    require_same_sizes,
    restored,
    stored,
)
from bothways.checkpoint.weights import read_weights
from bothways.errors import UserError, option
from bothways.files import read_json, replace_directory


@dataclass(frozen=True)
class StorageLoss:
    """What a storage has cost. bytes: of the file of weights. shared: tensors that are the base's.
    max_error, mean_error: of all weights, as they are restored from the file."""

    bytes: int
    tensors: int
    shared: int
    max_error: float
    mean_error: float


def save_compact(checkpoint: Checkpoint, directory: Path, storage: Storage, base: str | None = None) -> StorageLoss:
    """Write a model's directory atomically, as `storage` says.

    base: the name of a directory beside it, whose tensors are left out here where they are the same, as they are stored
    or as they are restored. `transformers` opens `float32` and `float16` without a base.
    Raises UserError for a storage that is not known, and for a base that is absent, of other sizes, or with a base.
    """
    if storage not in STORAGES:
        raise UserError(f"{option('storage', storage)}: expected one of {', '.join(STORAGES)}")
    table = name_table(checkpoint.model)
    theirs = table.to_hugging_face(checkpoint.model.state_dict())
    weights = {name: tensor.detach().cpu().float().contiguous() for name, tensor in theirs.items()}
    tensors = stored(weights, storage)
    note: dict[str, str] = {"storage": storage}
    shared: dict[str, Tensor] = {}
    if base is not None:
        beside = base_directory(directory, base)
        if "base" in read_json(beside / "bothways.json"):
            raise UserError(f"{option('base', base)}: shares weights with another model itself; name that one")
        require_same_sizes(directory, checkpoint.config, beside)
        modern = table.modern_names(weights)
        weights = {modern[name]: tensor for name, tensor in weights.items()}
        tensors = {_renamed(name, modern): tensor for name, tensor in tensors.items()}
        shared = _shared(weights, tensors, table, beside)
        tensors = {name: tensor for name, tensor in tensors.items() if name.removesuffix(SCALE) not in shared}
        note |= {"base": base, "base_weights": base_fingerprint(beside)}
    with replace_directory(directory) as partial:
        save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
        write_all_but_weights(replace(checkpoint, metadata={**checkpoint.metadata, **note}), partial)
    back = {**shared, **restored(tensors, directory)}
    errors = torch.cat([(weight - back[name].float()).abs().flatten() for name, weight in weights.items()])
    size = (directory / "model.safetensors").stat().st_size
    return StorageLoss(size, len(weights), len(shared), float(errors.max()), float(errors.mean()))


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """The name of a stored tensor; scales are called after their matrix."""
    return names[name] if name in names else names[name.removesuffix(SCALE)] + SCALE


def _shared(
    weights: Mapping[str, Tensor], tensors: Mapping[str, Tensor], table: NameTable, base: Path
) -> dict[str, Tensor]:
    """The tensors, as restored, that a base's file holds as well. weights: float32; tensors: as they are stored."""
    raw = read_weights(base)
    modern = table.modern_names({name: tensor for name, tensor in raw.items() if not name.endswith(SCALE)})
    held = {_renamed(name, modern): tensor for name, tensor in raw.items()}
    theirs = {name: tensor.float() for name, tensor in restored(held, base).items()}

    def same(name: str) -> bool:
        parts = [part for part in (name, name + SCALE) if part in tensors]
        return all(part in held and _equal(held[part], tensors[part]) for part in parts)

    return {
        name: theirs[name]
        for name, weight in weights.items()
        if name in theirs and (_equal(theirs[name], weight) or same(name))
    }


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
