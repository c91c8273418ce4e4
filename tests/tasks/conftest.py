"""A small pretrained model that the tests of tasks fine-tune."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothways.model.checkpoint import Checkpoint, new_model, save_checkpoint
from bothways.model.heads import PretrainingHead
from tests.helpers import tiny_config, tiny_tokenizer


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    save_checkpoint(Checkpoint(new_model(tiny_config(), PretrainingHead, seed=1), tiny_tokenizer()), tmp_path / "base")
    return tmp_path / "base"
