"""A store of several chunks that is made in a moment."""

from __future__ import annotations

import pytest

from bothways.data import store as storing
from bothways.data.prepare import prepare
from bothways.data.store import TokenStore
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_tokenizer


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """400 documents in chunks of about a thousand tokens."""
    folder = tmp_path_factory.mktemp("plan")
    write_corpus(folder / "c.jsonl", documents=400)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storing, "CHUNK_TOKENS", 1000)
        return prepare([str(folder / "c.jsonl")], tiny_tokenizer(), folder / "store")
