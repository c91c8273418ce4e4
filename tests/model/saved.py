"""A small model's directory, and its config changed."""

from __future__ import annotations

import json
from pathlib import Path

from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint
from bothways.model.families import head_builder
from tests.helpers import tiny_config, tiny_tokenizer


def saved(tmp_path: Path) -> Path:
    save_checkpoint(
        Checkpoint(new_model(tiny_config(), head_builder("pretraining"), seed=1), tiny_tokenizer()), tmp_path / "m"
    )
    return tmp_path / "m"


def edit_config(model: Path, **values: object) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **values}))
