"""Two `torchrun` agents on the loopback as two machines, of which one is lost. `two_machines.py` has more, and gives
each a network namespace of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from bothways.data.prepare import prepare
from bothways.train.run import RunDirectory
from bothways.verbs.pretrain import run_pretrain
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_tokenizer
from tests.train.test_distributed import OPTIONS, furthest
from tests.train.two_machines import DYING, SOUND, Agents, Machine, checkpoints

pytestmark = pytest.mark.slow


def evaluations(run: Path) -> list[float]:
    return [line["eval_mlm_loss"] for line in RunDirectory(run).metrics() if "eval_mlm_loss" in line]


def test_a_run_goes_on_when_a_machine_is_lost(tmp_path: Path) -> None:
    """With two machines again and with the one that is left: the parameters of an undisturbed run."""
    write_corpus(tmp_path / "c.jsonl", documents=200)
    store = prepare([str(tmp_path / "c.jsonl")], tiny_tokenizer(), tmp_path / "store").directory

    def by_one_process(out: Path) -> None:
        assert run_pretrain([str(store), "--out", str(out), *OPTIONS]) == 0

    by_one_process(tmp_path / "whole")
    machines = [Machine(), Machine()]
    (code, said), (of_the_dead, _) = Agents(machines, store, tmp_path / "two").run(DYING)
    assert code > 0, said
    assert of_the_dead < 0  # killed
    assert "rank 0 of 2 lost the other processes" in said
    assert "the last checkpoint is intact, and the same command goes on from it" in said
    assert checkpoints(tmp_path / "two") == ["step-00000005"]
    shutil.copytree(tmp_path / "two", tmp_path / "one")
    for code, said in Agents(machines, store, tmp_path / "two").run(SOUND):
        assert code == 0, said
    by_one_process(tmp_path / "one")
    for name in ("two", "one"):
        assert furthest(tmp_path / name, tmp_path / "whole") < 1e-5
        assert np.allclose(evaluations(tmp_path / name), evaluations(tmp_path / "whole"), rtol=0, atol=1e-5)
