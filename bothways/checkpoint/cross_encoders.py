"""sentence-transformers' CrossEncoder directories: classifiers of pairs whose scores go through a function that they
name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bothways.checkpoint.sentence_transformers import (
    SETTINGS_FILE,
    encoder_directory,
    listed_modules,
    module_kind,
    stated_max_length,
    transformer_config,
)
from bothways.errors import UserError
from bothways.files import read_json

OLDER_KEY = "sbert_ce_default_activation_function"  # in config.json, before version 4
# What the number of a model with one label goes through, by our word, and the class that stands for it in a file.
NUMBER_ACTIVATIONS = {
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
    "identity": "torch.nn.modules.linear.Identity",
}


def cross_encoder_state(root: Path, config: Mapping[str, Any], num_labels: int, problem: str | None) -> dict[str, Any]:
    """What `bothways.json` would say of a CrossEncoder besides its labels; nothing of another classifier.

    root: of the directory. config: of its encoder. The number of a single label goes through a sigmoid, unless the
    directory names the identity. Several labels are probabilities here, as their softmax or, where each is a yes or no
    of its own, their sigmoid has them; sentence-transformers gives logits where the directory names the identity.
    Raises UserError for other functions, other modules and for a default prompt.
    """
    path = root / SETTINGS_FILE
    settings = read_json(path) if path.exists() else {}
    of_config = config.get("sentence_transformers")
    is_marked = settings.get("model_type") == "CrossEncoder" or isinstance(of_config, dict) or OLDER_KEY in config
    if not is_marked:
        return {}
    _require_plain(root, settings)
    of_config = of_config if isinstance(of_config, dict) else {}
    named = settings.get("activation_fn") or of_config.get("activation_fn") or config.get(OLDER_KEY)
    encoder = encoder_directory(root)
    longest = stated_max_length(encoder, transformer_config(encoder))
    limit = {} if longest is None or longest > _rows(config) else {"sequence_length": longest}
    function = re.sub(r"^torch\.nn\.(modules\.\w+\.)?", "", str(named)).lower() if named is not None else None
    if num_labels == 1:
        function = function or "sigmoid"
        _require(root, named, function in NUMBER_ACTIVATIONS, "one label Sigmoid and Identity")
        return {"activation": function, **limit}
    if problem == "multi_label_classification":
        _require(root, named, function in (None, "identity", "sigmoid"), "labels of their own Sigmoid and Identity")
    else:
        _require(root, named, function in (None, "identity", "softmax"), "several labels Softmax and Identity")
    return limit


def _rows(config: Mapping[str, Any]) -> int:
    """Rows of the position table, where a config says it in the usual way."""
    rows = config.get("max_position_embeddings")
    return rows if isinstance(rows, int) else 0


def _require(root: Path, named: Any, is_read: bool, read: str) -> None:
    if not is_read:
        raise UserError(f"{root}: the scores go through {str(named)[:80]!r}; read are of {read}")


def _require_plain(root: Path, settings: Mapping[str, Any]) -> None:
    """Raises UserError for what stands before or behind the classifier."""
    path = root / "modules.json"
    kinds = [module_kind(module) for module in listed_modules(path)] if path.exists() else []
    if kinds not in ([], ["Transformer"]):
        raise UserError(f"{path}: the modules are {', '.join(kinds)}; of a CrossEncoder Transformer alone is read")
    name, prompts = settings.get("default_prompt_name"), settings.get("prompts") or {}
    if name is not None and isinstance(prompts, dict) and prompts.get(name):
        raise UserError(
            f"{root / SETTINGS_FILE}: default_prompt_name is {str(name)[:60]!a}, and a CrossEncoder's prompts are not "
            "read; take it out of the file, and write the prompt into the queries"
        )


def cross_encoder_config(activation: str) -> dict[str, Any]:
    """What config.json has of `activation`, for every version of sentence-transformers."""
    named = NUMBER_ACTIVATIONS[activation]
    return {"sentence_transformers": {"activation_fn": named}, OLDER_KEY: named}
