"""SIGKILL at random moments: what was killed and resumed equals what was not. `killing.py` has more."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bothways.data.prepare import prepare
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_tokenizer
from tests.train.killing import make, preparation, result, run_with_kills, store_bytes, training, undisturbed

pytestmark = pytest.mark.slow


def test_killed_runs_end_bit_identical(tmp_path: Path) -> None:
    write_corpus(tmp_path / "c.jsonl", documents=200)
    store = prepare([str(tmp_path / "c.jsonl")], tiny_tokenizer(), tmp_path / "store").directory
    seconds = undisturbed(training(store, tmp_path / "whole", steps=36), tmp_path)
    killed, sign = tmp_path / "killed", tmp_path / "killed" / "metrics.jsonl"
    assert run_with_kills(training(store, killed, steps=36), sign, 3, random.Random(1), longest=seconds / 6) >= 2
    assert result(killed) == result(tmp_path / "whole")


def test_a_killed_preparation_ends_in_the_same_bytes(tmp_path: Path) -> None:
    write_corpus(tmp_path / "c.jsonl", documents=8000)
    tiny_tokenizer().save(make(tmp_path / "vocabulary"))
    arguments = tmp_path / "c.jsonl", tmp_path / "vocabulary"
    seconds = undisturbed(preparation(*arguments, tmp_path / "whole"), tmp_path)
    killed, sign = tmp_path / "killed", tmp_path / "killed.parts"
    assert run_with_kills(preparation(*arguments, killed), sign, 2, random.Random(2), longest=seconds / 4) >= 1
    assert store_bytes(killed) == store_bytes(tmp_path / "whole")
