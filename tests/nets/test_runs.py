"""Runs that an earlier Bothways was stopped in, and what they come to: a later one goes on with them by the same
command, to the same bits.

fixtures/runs/NAME/ is a run's directory as it was when the process died behind its first checkpoint; NAME.json says
what the undisturbed run came to. Arithmetic is pinned by `PINNED` in a process of its own. On a machine like the one
that wrote the fixtures parameters are the same to the bit; elsewhere what is an integer is, and the rest to `NEAR`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import bothways as bw
from tests.nets import adapter
from tests.nets.golden import FIXTURES, PINNED, alike, as_json, check, run, write
from tests.nets.models import assemble

pytestmark = pytest.mark.slow

RUNS = FIXTURES / "runs"
NEAR = 1e-5
PART = 256  # rows of the part that the stopped bulk run had done
CLOCK = ("seconds", "tokens_per_second", "fraction_of_peak")

PRETRAIN = (
    "pretrain store --steps 8 --tokens-per-step 192 --sequence-length 32 --checkpoint-every 4 --evaluate-every 3 "
    "--log-every 3 --lr 0.002 --micro-batch-tokens 128 --precision float32 --device cpu"
)
FINETUNE = (
    "finetune classify --model classify --train rows/tickets.jsonl --eval rows/tickets-eval.jsonl --batch-size 3 "
    "--steps 120 --log-every 40 --lr 0.001 --precision float32 --device cpu --dropout 0 "
    "--freeze-layers 1"
)
# Commands whose beginning is a fixture; all are given in a folder with the store, the rows and the models.
STOPPED = {
    "pretrain": f"{PRETRAIN} --model pretraining --whole-word-masking --out pretrain",
    "finetune": f"{FINETUNE} --out finetune",
}
# Undisturbed ones, of which figures and hashes are kept: dropout, another optimizer, new weights, other objectives.
WHOLE = {
    "dropout": f"{PRETRAIN} --model pretraining --dropout 0.1 --out dropout",
    "muon": f"{PRETRAIN} --model pretraining --objective order --optimizer muon --out muon",
    "next-tokens": f"{PRETRAIN} --model causal --objective causal --out next-tokens",
    "new": f"{PRETRAIN} --size tiny --objective roberta --max-position-embeddings 32 --out new",
}
DEPENDS_ON_THE_BUILD = ("dropout", "new")  # without compiled code dropout draws otherwise; weights are drawn by torch
BULK = (
    "classify classify --in rows/tickets.jsonl --out labelled.jsonl --precision float32 --device cpu --text-column text"
)


@functools.cache
def machine() -> dict[str, Any]:
    """What decides about the last bit of a sum, where arithmetic is pinned."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    flags = next((line.split() for line in cpu.splitlines() if line.startswith("flags")), [])
    vendor = next((line.split()[-1] for line in cpu.splitlines() if line.startswith("vendor_id")), "")
    return {
        "system": f"{platform.system()} {platform.machine()} {vendor}",
        "avx2 and fma": {"avx2", "fma"} <= set(flags),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "compiled": any(Path(bw.__file__).parent.rglob("*.so")),
    }


def prepare(folder: Path) -> Path:
    """A folder with the store, the rows and the models that runs are of."""
    for name in ("store", "rows"):
        shutil.copytree(FIXTURES / name, folder / name)
    for name in ("pretraining", "causal", "classify"):
        assemble(name, folder / name)
    return folder


# Gives each command its own log, so that one that fails does not stop the others.
SCRIPT = """
import contextlib, sys, traceback
from bothways.cli import main
for line in sys.argv[1:]:
    with open(line.split()[-1] + ".log", "w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            main(line.split())
        except Exception:
            traceback.print_exc()
"""


def give(folder: Path, *commands: str) -> None:
    """Give the commands, each of which ends in its --out, in a process of its own, with pinned arithmetic."""
    called = [sys.executable, "-c", SCRIPT, *commands]
    subprocess.run(called, cwd=folder, env={**os.environ, **PINNED}, check=True)


def outcome(folder: Path) -> dict[str, Any]:
    """What a finished run's directory holds: hashes of its tensors, its metrics but the clock's, its position."""
    assert (folder / "model").exists(), folder.with_name(f"{folder.name}.log").read_text(encoding="utf-8")
    last = sorted((folder / "checkpoints").iterdir())[-1]
    state = json.loads((last / "state.json").read_text(encoding="utf-8"))
    files = (folder / "model" / "model.safetensors", last / "model.safetensors", last / "optimizer.safetensors")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    found: dict[str, Any] = {
        "tensors": {f"{path.parent.name}/{path.name}": _sha256(path) for path in files},
        "parameters": {name: probes(tensor) for name, tensor in load_file(files[0]).items()},
        "step": state["step"],
        "tokens": state["tokens"],
        "cursor": state["cursor"],
        "data": state["data"],
        "metrics": [{name: value for name, value in line.items() if name not in CLOCK} for line in lines],
    }
    if (folder / "evaluation.json").exists():
        found["evaluation"] = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        found["predictions"] = (folder / "predictions.csv").read_text(encoding="utf-8").splitlines()
    return found


def probes(tensor: np.ndarray) -> list[float]:
    """A few numbers that tell whether a tensor is near another: some of its values, and means over all of it."""
    values = tensor.astype(np.float64).ravel()
    waves = [np.cos(np.arange(len(values)) * turn) for turn in (0.0, 0.7, 2.9)]
    means = [float(np.mean(values * wave)) for wave in waves]
    return [*values[:: max(1, len(values) // 4)][:5].tolist(), *means]


def _with(path: Path, **values: Any) -> str:
    """A JSON file's text with other values, for what is a path or a time."""
    return json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}, indent=2) + "\n"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_fixtures(scratch: Path) -> None:
    """Stop runs, and let others like them come to their end. Called in a process with pinned arithmetic."""
    assert all(os.environ.get(name) == value for name, value in PINNED.items()), f"set {PINNED}"
    shutil.rmtree(RUNS, ignore_errors=True)
    undisturbed, stopped = prepare(scratch / "undisturbed"), prepare(scratch / "stopped")
    give(undisturbed, *STOPPED.values(), *WHOLE.values())
    with contextlib.chdir(stopped):
        for command in STOPPED.values():
            with adapter.stopped_at_first_checkpoint():
                run(*command.split())
        with adapter.stopped_before_merging():
            run(*BULK.split())
        run(*BULK.replace("labelled", "whole").split())
    for name in STOPPED:
        shutil.copytree(stopped / name, RUNS / name)
    described = RUNS / "pretrain" / "run.json"
    described.write_text(_with(described, store="store"), encoding="utf-8")
    parts = shutil.copytree(stopped / "labelled.jsonl.parts", RUNS / "labelled.jsonl.parts")
    for path in sorted(parts.glob("*-*"))[2:]:
        path.unlink()  # the last part, as if the process had died before it was written
    (parts / "manifest.json").write_text(_with(parts / "manifest.json", input="", modified=0), encoding="utf-8")
    lines = (stopped / "whole.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    write("runs/labelled-end.jsonl", "".join(lines[PART:]))
    with contextlib.chdir(stopped):
        write("runs/batch.txt", run("info", "pretrain", "--batch", 7, "--all"))
    write("runs/machine.json", as_json(machine()))
    for name in STOPPED:
        write(f"runs/{name}.json", as_json(outcome(undisturbed / name)))
    for name in WHOLE:
        write(f"runs/{name}.json", as_json(without(outcome(undisturbed / name), "parameters")))


def write_outcomes(scratch: Path) -> None:
    """Say anew what runs come to, where arithmetic was meant to change. Those that an earlier Bothways was stopped in
    stay as they are, go on, and must still come near to what was said of them."""
    folder = finish(scratch / "outcomes")
    for name in (*STOPPED, *WHOLE):
        golden, now = _golden(name), outcome(folder / name)
        assert alike(golden["metrics"], now["metrics"], NEAR if name in STOPPED else 1e-3), f"{name} learns otherwise"
        write(f"runs/{name}.json", as_json(now if name in STOPPED else without(now, "parameters")))


def finish(folder: Path) -> Path:
    """The stopped runs, gone on with, and the whole ones, all in one process."""
    prepare(folder)
    for name in STOPPED:
        shutil.copytree(RUNS / name, folder / name)
    give(folder, *STOPPED.values(), *WHOLE.values())
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tmp_path_factory.mktemp("runs"))


def same_machine() -> bool:
    return bool(machine() == _golden("machine"))


def _golden(name: str) -> Any:
    return json.loads((RUNS / f"{name}.json").read_text(encoding="utf-8"))


def without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def integers(values: Any) -> Any:
    """A value with every float left out."""
    if isinstance(values, dict):
        return {key: integers(one) for key, one in values.items()}
    if isinstance(values, list):
        return [integers(one) for one in values]
    return "number" if isinstance(values, float) else values


@pytest.mark.parametrize("name", STOPPED)
def test_a_stopped_run_goes_on_and_ends_where_the_undisturbed_one_did(finished: Path, name: str) -> None:
    golden, now = _golden(name), json.loads(json.dumps(outcome(finished / name)))
    if same_machine():
        assert now == golden
        return
    for one in (golden, now):
        # a key's bias adds the same to all scores of a query: its gradient is rounding alone, which Adam scales up
        one["parameters"] = {key: value for key, value in one["parameters"].items() if not key.endswith("key.bias")}
    assert integers(without(now, "tensors", "predictions")) == integers(without(golden, "tensors", "predictions"))
    assert alike(golden["metrics"], now["metrics"], NEAR)
    assert alike(golden["parameters"], now["parameters"], NEAR)


@pytest.mark.parametrize("name", STOPPED)
def test_the_stopped_run_did_go_on(finished: Path, name: str) -> None:
    """Its first lines are the fixture's, clock included: it did not begin anew."""
    before = (RUNS / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert (finished / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[: len(before)] == before


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_run_comes_to_what_it_came_to(finished: Path, name: str) -> None:
    golden, now = _golden(name), json.loads(json.dumps(without(outcome(finished / name), "parameters")))
    if same_machine():
        assert now == golden
        return
    if name in DEPENDS_ON_THE_BUILD:
        assert [now[one] for one in ("step", "tokens", "cursor")] == [
            golden[one] for one in ("step", "tokens", "cursor")
        ]
        return
    assert integers(without(now, "tensors")) == integers(without(golden, "tensors"))
    assert alike(golden["metrics"], now["metrics"], 1e-3)


@pytest.mark.parametrize("name", STOPPED)
def test_a_run_of_another_seed_does_not_go_on_there(tmp_path: Path, name: str) -> None:
    folder = prepare(tmp_path / "folder")
    shutil.copytree(RUNS / name, folder / name)
    before = outline(folder / name)
    with contextlib.chdir(folder), pytest.raises(AssertionError, match="--seed was 0, now 1"):
        run(*f"{STOPPED[name]} --seed 1".split())
    assert outline(folder / name) == before


def outline(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_stopped_run_shows_the_batch_of_a_step_to_come(tmp_path: Path) -> None:
    """From run.json and the checkpoint's cursor."""
    folder = prepare(tmp_path / "folder")
    shutil.copytree(RUNS / "pretrain", folder / "pretrain")
    with contextlib.chdir(folder):
        check("runs/batch.txt", run("info", "pretrain", "--batch", 7, "--all"), "runs")


def test_a_stopped_bulk_run_goes_on_and_gives_the_same_rows(tmp_path: Path) -> None:
    """The parts say what they are of: the table by its path, size and time, the model by its weights."""
    folder = prepare(tmp_path / "folder")
    parts = shutil.copytree(RUNS / "labelled.jsonl.parts", folder / "labelled.jsonl.parts")
    table = folder / "rows" / "tickets.jsonl"
    manifest = json.loads((parts / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["bytes"] == table.stat().st_size
    there = {"input": str(table.resolve()), "modified": table.stat().st_mtime_ns}
    (parts / "manifest.json").write_text(json.dumps({**manifest, **there}), encoding="utf-8")
    with contextlib.chdir(folder):
        assert f"300 rows, {PART} of them by an earlier run" in run(*BULK.split())
    begun = (RUNS / parts.name / f"{0:012d}-{PART:012d}.jsonl").read_text(encoding="utf-8").splitlines()
    end = (RUNS / "labelled-end.jsonl").read_text(encoding="utf-8").splitlines()
    now = (folder / "labelled.jsonl").read_text(encoding="utf-8").splitlines()
    assert now[:PART] == begun
    assert all(alike(json.loads(one), json.loads(row), 1e-4) for one, row in zip(end, now[PART:], strict=True))
    assert not parts.exists()
