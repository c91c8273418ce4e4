"""Models that several nets ask, put together once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.nets.models import NAMES, assemble


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every model under its name."""
    folder = tmp_path_factory.mktemp("models")
    for name in NAMES:
        assemble(name, folder / name)
    return folder


@pytest.fixture(scope="session")
def pretraining(models: Path) -> Path:
    return models / "pretraining"
