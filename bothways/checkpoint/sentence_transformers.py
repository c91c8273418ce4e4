"""The files that make a Hugging Face directory a sentence-transformers one: modules.json and the modules' own.

Reads and writes exactly an `EmbeddingHead`: an encoder, pooling by mean or first token, and normalisation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bothways.errors import UserError
from bothways.files import read_json, write_json, write_text
from bothways.model.heads import Pooling

POOLINGS: dict[str, Pooling] = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


@dataclass(frozen=True)
class SentenceModules:
    """What `modules.json` puts behind an encoder.

    max_length: tokens a text may have; None where the directory does not say.
    """

    pooling: Pooling
    normalize: bool
    max_length: int | None


def read_modules(directory: Path) -> SentenceModules | None:
    """Reads what `modules.json` puts on the encoder; None where there is no such file.

    Raises UserError for modules that are not pooling by mean or first token and normalisation.
    """
    path = directory / "modules.json"
    if not path.exists():
        return None
    pooling: Pooling | None = None
    normalize = False
    for module in _listed(path):
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            pooling = _pooling(directory / str(module.get("path", "")) / "config.json")
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise UserError(
                f"{path}: the module {module.get('type')!r} is not read; Transformer, Pooling, Normalize are"
            )
    if pooling is None:
        raise UserError(f"{path}: has no Pooling module")
    return SentenceModules(pooling, normalize, _max_length(directory))


def _max_length(directory: Path) -> int | None:
    """Where sentence-transformers keeps it: its own file, or, since version 6, the tokenizer's."""
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        limit = read_json(directory / name).get(key) if (directory / name).exists() else None
        if isinstance(limit, int) and limit >= 3:
            return limit
    return None


def _listed(path: Path) -> list[dict[str, Any]]:
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise UserError(f"{path}: expected a list of modules")
    return modules


def _pooling(path: Path) -> Pooling:
    """Pooling's config: one mode by name in newer files, switches in older ones."""
    config = read_json(path)
    named = config.get("pooling_mode")
    if named is not None:
        modes = [named] if isinstance(named, str) else list(named)
    else:
        modes = [POOLINGS.get(key, key) for key, value in config.items() if key.startswith("pooling_mode") and value]
    if len(modes) != 1 or modes[0] not in POOLINGS.values():
        raise UserError(f"{path}: pools by {', '.join(map(str, modes)) or 'nothing'}; read are mean and cls")
    return "cls" if modes[0] == "cls" else "mean"


def write_modules(directory: Path, modules: SentenceModules, hidden_size: int) -> None:
    """Write the files into a Hugging Face directory, as sentence-transformers of every version reads them."""
    types = ["Transformer", "Pooling", *(["Normalize"] if modules.normalize else [])]
    listed = [
        {"idx": n, "name": str(n), "path": f"{n}_{kind}" if n else "", "type": f"sentence_transformers.models.{kind}"}
        for n, kind in enumerate(types)
    ]
    write_text(directory / "modules.json", json.dumps(listed, indent=2) + "\n")
    write_json(directory / "sentence_bert_config.json", {"max_seq_length": modules.max_length, "do_lower_case": False})
    for module in listed[1:]:
        (directory / str(module["path"])).mkdir()
    switches = {key: mode == modules.pooling for key, mode in POOLINGS.items()}
    write_json(directory / "1_Pooling" / "config.json", {"word_embedding_dimension": hidden_size, **switches})
