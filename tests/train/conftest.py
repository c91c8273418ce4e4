"""Fixtures of the tests of training."""

from __future__ import annotations

import pytest

from bothways.data.prepare import prepare
from bothways.data.store import TokenStore
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_tokenizer


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    folder = tmp_path_factory.mktemp("loop")
    write_corpus(folder / "c.jsonl", documents=100)
    return prepare([str(folder / "c.jsonl")], tiny_tokenizer(), folder / "store")
