"""Where a model's files are, a directory or the hub, and the tensors in them. Nothing is ever unpickled."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bothways.checkpoint.remote_models import copied_model
from bothways.checkpoint.shipped import shipped_models
from bothways.checkpoint.unfinished import is_unfinished, unfinished_model
from bothways.errors import UserError, closest
from bothways.files import read_json
from bothways.option_checks import in_short
from bothways.remote_files import local_path, url_of
from bothways.text.sources import CORPUS_SUFFIXES, uncompressed_suffix

MODEL_FILES = (
    "config.json",
    "tokenizer*",
    "vocab.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "adapter_config.json",
    "bothways.json",
)
# Of sentence-transformers, whose older versions keep the encoder in a folder of its own.
SENTENCE_FILES = (
    *("modules.json", "*sentence_*.json", "*/config.json", *(f"0_*/{name}" for name in MODEL_FILES)),
    *("*_Dense/model.safetensors", "*_Dense/pytorch_model.bin"),
)
_WEIGHTS = (("model", "safetensors"), ("pytorch_model", "bin"))
SAFETENSORS_FILES, BINARY_FILES = (
    tuple(
        folder + name
        for folder in ("", "0_*/")
        for name in (f"{stem}.{kind}", f"{stem}.{kind}.index.json", f"{stem}-*-of-*.{kind}")
    )
    for stem, kind in _WEIGHTS
)
# What else a model's directory may hold, and what it is, for those that look for weights and find these.
FOREIGN_FILES = {
    "adapter_config.json": "an adapter (PEFT), which changes what the model computes; merge it into the model first",
    "bert_config.json": "google-research/bert's form; convert it with transformers first",
    "tf_model.h5": "TensorFlow's weights; save the model with transformers as safetensors first",
    "flax_model.msgpack": "Flax's weights; save the model with transformers as safetensors first",
}


def find_model(path_or_hub_id: str | Path) -> Path:
    """The directory of a model: itself, `model/` in a run's directory, a shipped one by its name, the copy of what is
    behind a URL, or a download from the hub; of a run that has not finished as `unfinished_model`.

    Raises UserError where it is none of them.
    """
    if not isinstance(path_or_hub_id, str | Path) or not str(path_or_hub_id).strip():
        raise UserError(f"expected a model's directory or its name on the hub, found {in_short(path_or_hub_id)}")
    if (url := url_of(path_or_hub_id)) is not None:
        return copied_model(url)
    path = local_path(path_or_hub_id)
    if path.is_dir():
        run = path / "model"
        if not (path / "config.json").exists() and (run / "config.json").exists():
            return run
        if not (path / "config.json").exists() and is_unfinished(path):
            return unfinished_model(path)
        if not (path / "config.json").exists():
            refuse_foreign_form(path)
            _refuse_other_results(path)
        return path
    if path.exists():
        raise UserError(f"{path} is a file; a model is a directory with config.json and model.safetensors")
    shipped = shipped_models()
    if str(path_or_hub_id) in shipped:
        return shipped[str(path_or_hub_id)].directory
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(path_or_hub_id)):
        raise UserError(f"{path}: no such model directory")
    import huggingface_hub

    wanted = [*MODEL_FILES, *SENTENCE_FILES]
    try:
        snapshot = Path(
            huggingface_hub.snapshot_download(str(path_or_hub_id), allow_patterns=[*wanted, *SAFETENSORS_FILES])
        )
        if not any(path for pattern in SAFETENSORS_FILES for path in snapshot.glob(pattern)):
            huggingface_hub.snapshot_download(str(path_or_hub_id), allow_patterns=list(BINARY_FILES))
    except Exception as error:
        raise UserError(
            f"{path}: no such model directory{closest(str(path), shipped)}, and {_why_not_from_the_hub(error)}"
        ) from error
    return snapshot


def _why_not_from_the_hub(error: Exception) -> str:
    """In words, why the hub's library has found no model."""
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError

    if not isinstance(error, LocalEntryNotFoundError):
        return f"the hub gave no model of this name ({_first_line(error)})"
    if constants.HF_HUB_OFFLINE:
        return "the hub's cache has no model of this name; HF_HUB_OFFLINE keeps it from being downloaded"
    return f"the hub, whose cache has no model of this name, cannot be reached ({_first_line(error)})"


def _refuse_other_results(directory: Path) -> None:
    """Raises UserError for a token store and for a vocabulary, which are directories of ours, too, and for texts."""
    if (directory / "manifest.json").exists() or (directory / "progress.json").exists():
        raise UserError(f"{directory} is a token store, not a model; pretrain reads it")
    if (directory / "tokenizer.json").exists() or (directory / "vocab.txt").exists():
        raise UserError(f"{directory} is a vocabulary, not a model: config.json is missing; prepare reads it")
    names = [path.name for path in directory.iterdir()]
    texts = [name for name in names if uncompressed_suffix(Path(name)) in CORPUS_SUFFIXES]
    if texts and "run.json" not in names and not any(name.endswith((".safetensors", ".bin")) for name in names):
        raise UserError(
            f"{directory} holds texts ({', '.join(sorted(texts)[:3])}{', …' if len(texts) > 3 else ''}), not a model: "
            "name a model, or make one of them: tokenizer learns a vocabulary, prepare makes a store, pretrain a model"
        )


def refuse_foreign_form(directory: Path) -> None:
    """Raises UserError where a directory holds a model in a form that is not read, or a part that is left to others."""
    for name, form in FOREIGN_FILES.items():
        if (directory / name).exists():
            raise UserError(f"{directory}: {name} is {form}")


def read_weights(directory: Path) -> dict[str, Tensor]:
    """Every tensor of `model.safetensors`, of its shards, or of a `pytorch_model.bin` or its shards that hold tensors
    and no code; of a run that has not finished those of its last checkpoint.

    Raises UserError for files that are missing, damaged, or anything else.
    """
    try:
        if (directory / "model.safetensors").exists():
            return load_file(directory / "model.safetensors")
        if (shards := _shards(directory / "model.safetensors.index.json")) is not None:
            return {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{directory}: the weights cannot be read: {_first_line(error)}") from error
    binary = directory / "pytorch_model.bin"
    if binary.exists():
        return _read_binary(binary)
    if (shards := _shards(directory / "pytorch_model.bin.index.json")) is not None:
        return {name: tensor for shard in shards for name, tensor in _read_binary(shard).items()}
    refuse_foreign_form(directory)
    raise UserError(f"{directory}: not a model directory: model.safetensors and pytorch_model.bin are both missing")


def _shards(index: Path) -> list[Path] | None:
    """The files that an index names, all of them beside it; None where there is no index."""
    if not index.exists():
        return None
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index}: has no weight_map")
    names = set(map(str, weight_map.values()))
    for name in sorted(names):
        if not re.fullmatch(r"[\w.-]+", name) or not (index.parent / name).is_file():
            raise UserError(f"{index}: names the file {name[:80]!a}, which is not beside it")
    return [index.parent / name for name in sorted(names)]


def _read_binary(binary: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(binary, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle.UnpicklingError and kin: never retried without weights_only
        raise UserError(f"{binary}: not a plain file of tensors, refused: {_first_line(error)}") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{binary}: not a plain file of named tensors, refused")
    return content


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
