"""One run on two real processes (torchrun, gloo): the same losses and weights as on one, resharded checkpoints, and
what happens when a process dies."""

from __future__ import annotations

import os
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
from bothways.data.prepare import prepare
from bothways.train.run import RunDirectory
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_tokenizer

OPTIONS = (
    *("--size", "tiny", "--steps", "12", "--tokens-per-step", "1000", "--sequence-length", "32", "--device", "cpu"),
    *("--checkpoint-every", "5", "--log-every", "1", "--evaluate-every", "5", "--precision", "float32"),
    *("--max-position-embeddings", "64", "--micro-batch-tokens", "300"),
)


def start(script: list[str], store: Path, out: Path, processes: int, *more: str) -> subprocess.CompletedProcess[str]:
    """Run `bothways pretrain` by torchrun, or plainly on one process. Restarts come before the script's options."""
    restarts = [option for option in more if option.startswith("--max-restarts")]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*launcher, *restarts] if processes > 1 else [sys.executable]
    rest = [option for option in more if option not in restarts]
    return subprocess.run(
        [*command, *script, "pretrain", str(store), "--out", str(out), *OPTIONS, *rest],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300, check=False,
    )  # fmt: skip


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in RunDirectory(run).metrics() if "loss" in line]


def furthest(a: Path, b: Path) -> float:
    """The largest difference of a weight between the models of two runs."""
    one, other = (load_file(run / "model" / "model.safetensors") for run in (a, b))
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and the same run made by one process, by two, and by two that share the parameters out."""
    folder = tmp_path_factory.mktemp("distributed")
    write_corpus(folder / "c.jsonl", documents=200)
    prepare([str(folder / "c.jsonl")], tiny_tokenizer(), folder / "store")
    for name, processes, more in (("one", 1, []), ("ddp", 2, []), ("fsdp", 2, ["--parallel", "fsdp"])):
        made = start(["-m", "bothways.cli"], folder / "store", folder / name, processes, *more)
        assert made.returncode == 0, made.stderr
    return folder


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_processes_learn_what_one_learns(runs: Path, name: str) -> None:
    assert np.allclose(losses(runs / name), losses(runs / "one"), rtol=0, atol=1e-5)
    assert furthest(runs / name, runs / "one") < 1e-5
    assert [line["tokens"] for line in RunDirectory(runs / name).metrics()] == [
        line["tokens"] for line in RunDirectory(runs / "one").metrics()
    ]


def test_a_language_model_is_sharded_as_well_with_its_samples(runs: Path, tmp_path: Path) -> None:
    for name, processes, more in (("one", 1, []), ("fsdp", 2, ["--parallel", "fsdp"])):
        causal = ("--objective", "causal", *more)
        made = start(["-m", "bothways.cli"], runs / "store", tmp_path / name, processes, *causal)
        assert made.returncode == 0, made.stderr
    assert np.allclose(losses(tmp_path / "one"), losses(tmp_path / "fsdp"), rtol=0, atol=1e-5)
    lines = [line for line in RunDirectory(tmp_path / "fsdp").metrics() if "eval_continuations" in line]
    assert lines[-1]["eval_continuations"]


def test_a_student_learns_the_same_of_its_teacher(runs: Path, tmp_path: Path) -> None:
    """The teacher is whole in each process, and no part of what is shared out."""
    teacher = ("--teacher", str(runs / "one"), "--teacher-losses", "relation", "soft", "hidden", "--objective", "mlm")
    for name, processes in (("one", 1), ("ddp", 2)):
        made = start(["-m", "bothways.cli"], runs / "store", tmp_path / name, processes, *teacher)
        assert made.returncode == 0, made.stderr
    lines = [RunDirectory(tmp_path / name).metrics() for name in ("one", "ddp")]
    for found in zip(*lines, strict=True):
        for name in ("mlm_loss", "relation_loss", "soft_loss", "hidden_loss", "eval_relation_loss"):
            values = [line[name] for line in found if name in line]
            assert np.allclose(values, values[:1], rtol=0, atol=1e-4)
    assert furthest(tmp_path / "ddp", tmp_path / "one") < 1e-4


def test_a_checkpoint_in_shards_is_a_model(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "fsdp", tmp_path / "run", ignore=shutil.ignore_patterns("model"))
    with pytest.warns(UnfinishedRunWarning, match="step 12 of 12"):
        unfinished = bw.load(tmp_path / "run").model.state_dict()
    finished = bw.load(runs / "fsdp").model.state_dict()
    assert all(torch.equal(unfinished[name], finished[name]) for name in finished)


@pytest.mark.parametrize(
    ("before", "processes", "more"),
    [("fsdp", 1, []), ("fsdp", 2, ["--parallel", "fsdp"]), ("fsdp", 2, []), ("one", 2, ["--parallel", "fsdp"])],
)
def test_a_checkpoint_goes_on_at_another_number_of_processes(
    runs: Path, tmp_path: Path, before: str, processes: int, more: list[str]
) -> None:
    shards = list((runs / "fsdp" / "checkpoints" / "step-00000010").glob("*.safetensors"))
    assert len(shards) == 2  # each process wrote its own
    kept = [set(load_file(shard)) for shard in shards]
    plain = set(load_file(runs / "one" / "checkpoints" / "step-00000010" / "optimizer.safetensors"))
    assert plain <= kept[0] | kept[1]  # the moments of every parameter, though an evaluation came just before
    shutil.copytree(runs / before, tmp_path / "run", ignore=shutil.ignore_patterns("step-00000012", "model"))
    made = start(["-m", "bothways.cli"], runs / "store", tmp_path / "run", processes, *more)
    assert made.returncode == 0, made.stderr
    assert "resuming at step 10" in made.stderr
    assert furthest(tmp_path / "run", runs / "one") < 1e-5


def test_a_killed_process_ends_the_run_and_torchrun_brings_it_back(runs: Path, tmp_path: Path) -> None:
    dying = ["-m", "tests.train.dying"]
    ended = start(dying, runs / "store", tmp_path / "run", 2)
    assert ended.returncode != 0
    assert "rank 0 of 2 lost the other processes" in ended.stderr
    assert [path.name for path in RunDirectory(tmp_path / "run").checkpoints()] == ["step-00000005"]
    shutil.rmtree(tmp_path / "run")
    back = start(dying, runs / "store", tmp_path / "run", 2, "--max-restarts=1")
    assert back.returncode == 0, back.stderr
    assert "resuming at step 5" in back.stderr
    assert furthest(tmp_path / "run", runs / "one") < 1e-5


def test_torchruns_report_ends_with_our_line(tmp_path: Path) -> None:
    """It is torchrun's own, 30 lines long, and cannot be left out; its root cause is what the user did wrong."""
    refused = start(["-m", "bothways.cli"], tmp_path / "no store", tmp_path / "run", 2)
    assert refused.returncode != 0
    lines = refused.stderr.rstrip().splitlines()
    assert set(lines[-1]) == {"="}
    assert lines[-2].endswith(
        f": bothways: {tmp_path / 'no store'}: no such token store; make one with `bothways prepare`"
    )
