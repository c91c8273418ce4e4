"""SIGKILL at random moments: the run that was killed and resumed equals the one that was not. `killing.py` has more."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bothways.data.prepare import prepare
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_tokenizer
from tests.train.killing import command, result, run_with_kills


def test_killed_runs_end_bit_identical(tmp_path: Path) -> None:
    write_corpus(tmp_path / "c.jsonl", documents=200)
    store = prepare([str(tmp_path / "c.jsonl")], tiny_tokenizer(), tmp_path / "store").directory
    subprocess.run(command(store, tmp_path / "whole"), check=True, capture_output=True)
    assert run_with_kills(store, tmp_path / "killed", kills=3, seed=1) >= 2
    assert result(tmp_path / "killed") == result(tmp_path / "whole")
