"""SIGKILL at random moments: what was killed and resumed equals what was not. `killing.py` has more."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

from bothways.data.prepare import prepare
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_tokenizer
from tests.train.killing import command, make, preparation, result, run_with_kills, store_bytes


def test_killed_runs_end_bit_identical(tmp_path: Path) -> None:
    write_corpus(tmp_path / "c.jsonl", documents=200)
    store = prepare([str(tmp_path / "c.jsonl")], tiny_tokenizer(), tmp_path / "store").directory
    subprocess.run(command(store, tmp_path / "whole"), check=True, capture_output=True)
    killed = tmp_path / "killed"
    assert run_with_kills(command(store, killed), killed / "metrics.jsonl", 3, random.Random(1), longest=1.2) >= 2
    assert result(killed) == result(tmp_path / "whole")


def test_a_killed_preparation_ends_in_the_same_bytes(tmp_path: Path) -> None:
    write_corpus(tmp_path / "c.jsonl", documents=8000)
    tiny_tokenizer().save(make(tmp_path / "vocabulary"))
    arguments = tmp_path / "c.jsonl", tmp_path / "vocabulary"
    subprocess.run(preparation(*arguments, tmp_path / "whole"), check=True, capture_output=True)
    killed = tmp_path / "killed"
    assert run_with_kills(preparation(*arguments, killed), tmp_path / "killed.parts", 2, random.Random(2), 1.0) >= 1
    assert store_bytes(killed) == store_bytes(tmp_path / "whole")
