"""What needs a GPU: `pytest -m gpu`. Without CUDA these tests are skipped; `BOTHWAYS_TEST_DEVICE=cpu` runs them on a
CPU, but for what only CUDA has, which proves the tests themselves."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch

from bothways.data.store import TokenStore

HERE = Path(__file__).parent
DEVICE = os.environ.get("BOTHWAYS_TEST_DEVICE", "cuda")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder, and skip it where there is no such device."""
    missing = pytest.mark.skip(reason="no GPU with CUDA on this machine")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if DEVICE == "cuda" and not torch.cuda.is_available():
                item.add_marker(missing)


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device(DEVICE, 0) if DEVICE == "cuda" else torch.device(DEVICE)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """A token store of random pieces, as `benchmarks/gpu_all.py` trains on."""
    path = HERE.parents[1] / "benchmarks" / "random_text.py"
    spec = importlib.util.spec_from_file_location("random_text", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: TokenStore = module.random_store(tmp_path_factory.mktemp("gpu") / "store", 400, 40_000)
    return made
