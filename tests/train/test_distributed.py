"""One run on two real processes (torchrun, gloo): the same losses and weights as on one, resharded checkpoints, and
what happens when a process dies.

The runs of two processes are made by a single torchrun, one after the other (`commands.py`), whose processes are forked
(`launching.py`), and those of one process in this one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import bothways as bw
from bothways.checkpoint.unfinished import UnfinishedRunWarning
from bothways.cli import main
from bothways.data.prepare import prepare
from bothways.train.run import RunDirectory
from tests.data.test_prepare import write_corpus
from tests.helpers import Run, tiny_tokenizer
from tests.train.commands import copy_at_step_10
from tests.train.launching import torchrun

pytestmark = pytest.mark.slow
OPTIONS = (
    *("--size", "tiny", "--steps", "12", "--tokens-per-step", "1000", "--sequence-length", "32", "--device", "cpu"),
    *("--checkpoint-every", "5", "--log-every", "1", "--evaluate-every", "5", "--precision", "float32"),
    *("--max-position-embeddings", "64", "--micro-batch-tokens", "300"),
)


# Name → the run whose checkpoint of step 10 it goes on from, and how.
RESUMED = {
    "fsdp after fsdp": ("fsdp", ("--parallel", "fsdp")),
    "ddp after fsdp": ("fsdp", ()),
    "fsdp after one": ("one", ("--parallel", "fsdp")),
}
CAUSAL = ("--objective", "causal")
TAUGHT = ("--teacher-losses", "relation", "soft", "hidden", "--objective", "mlm")


def pretrain(folder: Path, name: str, *more: str) -> list[str]:
    """The command line for a run of this name in the folder."""
    return ["pretrain", str(folder / "store"), "--out", str(folder / name), *OPTIONS, *more]


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in RunDirectory(run).metrics() if "loss" in line]


def furthest(a: Path, b: Path) -> float:
    """The largest difference of a weight between the models of two runs."""
    one, other = (load_file(run / "model" / "model.safetensors") for run in (a, b))
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and the same runs made by one process, by two, and by two that share the parameters out;
    what the commands of two processes said is in `NAME.log`."""
    folder = tmp_path_factory.mktemp("distributed")
    write_corpus(folder / "c.jsonl", documents=200)
    prepare([str(folder / "c.jsonl")], tiny_tokenizer(), folder / "store")
    teacher = ("--teacher", str(folder / "one"), *TAUGHT)
    for name, more in (("one", ()), ("causal one", CAUSAL), ("taught one", teacher)):
        assert main(pretrain(folder, name, *more)) == 0
    new = {
        "ddp": (),
        "fsdp": ("--parallel", "fsdp"),
        "causal fsdp": (*CAUSAL, "--parallel", "fsdp"),
        "taught ddp": teacher,
    }
    commands = [(name, None, pretrain(folder, name, *more)) for name, more in new.items()]
    commands += [(name, before, pretrain(folder, name, *more)) for name, (before, more) in RESUMED.items()]
    (folder / "commands.json").write_text(json.dumps(commands))
    code, said = torchrun("tests.train.commands", folder)
    assert code == 0, said
    return folder


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_processes_learn_what_one_learns(runs: Path, name: str) -> None:
    assert np.allclose(losses(runs / name), losses(runs / "one"), rtol=0, atol=1e-5)
    assert furthest(runs / name, runs / "one") < 1e-5
    assert [line["tokens"] for line in RunDirectory(runs / name).metrics()] == [
        line["tokens"] for line in RunDirectory(runs / "one").metrics()
    ]


def test_a_language_model_is_sharded_as_well_with_its_samples(runs: Path) -> None:
    assert np.allclose(losses(runs / "causal one"), losses(runs / "causal fsdp"), rtol=0, atol=1e-5)
    lines = [line for line in RunDirectory(runs / "causal fsdp").metrics() if "eval_continuations" in line]
    assert lines[-1]["eval_continuations"]


def test_a_student_learns_the_same_of_its_teacher(runs: Path) -> None:
    """The teacher is whole in each process, and no part of what is shared out."""
    lines = [RunDirectory(runs / name).metrics() for name in ("taught one", "taught ddp")]
    for found in zip(*lines, strict=True):
        for name in ("mlm_loss", "relation_loss", "soft_loss", "hidden_loss", "eval_relation_loss"):
            values = [line[name] for line in found if name in line]
            assert np.allclose(values, values[:1], rtol=0, atol=1e-4)
    assert furthest(runs / "taught ddp", runs / "taught one") < 1e-4


def test_a_checkpoint_in_shards_is_a_model(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "fsdp", tmp_path / "run", ignore=shutil.ignore_patterns("model"))
    with pytest.warns(UnfinishedRunWarning, match="step 12 of 12"):
        unfinished = bw.load(tmp_path / "run").model.state_dict()
    finished = bw.load(runs / "fsdp").model.state_dict()
    assert all(torch.equal(unfinished[name], finished[name]) for name in finished)


def test_a_checkpoint_in_shards_has_all_moments(runs: Path) -> None:
    shards = list((runs / "fsdp" / "checkpoints" / "step-00000010").glob("*.safetensors"))
    assert len(shards) == 2  # each process wrote its own
    kept = [set(load_file(shard)) for shard in shards]
    plain = set(load_file(runs / "one" / "checkpoints" / "step-00000010" / "optimizer.safetensors"))
    assert plain <= kept[0] | kept[1]  # the moments of every parameter, though an evaluation came just before


@pytest.mark.parametrize("name", RESUMED)
def test_two_processes_go_on_from_a_checkpoint_of_others(runs: Path, name: str) -> None:
    assert "resuming at step 10" in (runs / f"{name}.log").read_text()
    assert furthest(runs / name, runs / "one") < 1e-5


def test_one_process_goes_on_from_a_checkpoint_of_two(runs: Path, bothways: Run) -> None:
    copy_at_step_10(runs, "fsdp", "one after fsdp")
    code, _, errors = bothways(*pretrain(runs, "one after fsdp"))
    assert code == 0
    assert "resuming at step 10" in errors
    assert furthest(runs / "one after fsdp", runs / "one") < 1e-5


def test_a_killed_process_ends_the_run_and_torchrun_brings_it_back(runs: Path) -> None:
    code, said = torchrun("tests.train.dying", *pretrain(runs, "killed"), restarts=1)
    assert code == 0, said
    assert "rank 0 of 2 lost the other processes" in said
    assert "resuming at step 5" in said
    assert furthest(runs / "killed", runs / "one") < 1e-5


def test_torchruns_report_ends_with_our_line(tmp_path: Path) -> None:
    """It is torchrun's own, 30 lines long, and cannot be left out; its root cause is what the user did wrong."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = ["-m", "bothways.cli", "pretrain", str(tmp_path / "no store"), "--out", str(tmp_path / "run")]
    refused = subprocess.run([*launcher, *command], capture_output=True, text=True, timeout=600, check=False)
    assert refused.returncode != 0
    lines = refused.stderr.rstrip().splitlines()
    assert set(lines[-1]) == {"="}
    assert lines[-2].endswith(
        f": bothways: {tmp_path / 'no store'}: no such token store; make one with `bothways prepare`"
    )
