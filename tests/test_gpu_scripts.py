"""What is to run on a rented GPU runs on a CPU in small sizes: `benchmarks/gpu_all.py` and `tools/train_on_gpu.py`."""

from __future__ import annotations

import importlib
import json
import signal
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from safetensors.numpy import load_file

import bothways as bw
from bothways.data.store import TokenStore
from tools import train_on_gpu

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a script of benchmarks/, which is forgotten after the test."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in (set(sys.modules) - before) & {path.stem for path in BENCHMARKS.glob("*.py")}:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["pretrain", "encode", "finetune"])
def test_each_part_measures_small_sizes_on_a_cpu(name: str, script: Any, tmp_path: Path, capfd: Any) -> None:
    pytest.importorskip("transformers")
    parts = script("gpu_parts")
    parts.run(name, parts.PartRun(600, tmp_path, None, None, True, time.monotonic()))
    printed = capfd.readouterr().out.splitlines()
    results = [json.loads(line.removeprefix("RESULT ")) for line in printed if line.startswith("RESULT ")]
    assert not [result for result in results if "failed" in result]
    if name == "pretrain":
        assert 0 < results[1]["mfu"] < 2
        assert (tmp_path / results[2]["trace"]).stat().st_size > 1000
    elif name == "encode":
        speeds = [result for result in results if "engine" in result]
        assert {result["engine"] for result in speeds} == {"Bothways", "transformers, sdpa"}
        assert min(result["least_cosine"] for result in speeds) > 0.999
    else:
        ran = [(result["data"], result["contestant"]) for result in results]
        assert ran == [(data, name) for data in ("sst2", "squad1") for name in ("Bothways", "Trainer")]


def test_a_part_that_fails_or_hangs_leaves_what_it_found(script: Any, tmp_path: Path) -> None:
    gpu_all = script("gpu_all")
    report = gpu_all.Report(tmp_path / "out" / "gpu.json", {"machine": {}})
    tells = "import time; print('RESULT {\"mfu\": 0.5}', flush=True); "
    for name, rest in (("fails", "raise RuntimeError('no kernel')"), ("hangs", "time.sleep(600)"), ("ends", "")):
        part = gpu_all.Part(name, limit_seconds=60.0 if name != "hangs" else 3.0)
        report.parts.append(part)
        gpu_all.run_part(part, [sys.executable, "-c", tells + rest], report)
    fails, hangs, ends = json.loads((tmp_path / "out" / "gpu.json").read_text())["parts"]
    assert (fails["state"], fails["last_lines"][-1]) == ("failed", "RuntimeError: no kernel")
    assert (hangs["state"], hangs["why"]) == ("out of time", "ended after 3 s")
    assert (ends["state"], ends["last_lines"]) == ("done", [])
    assert [part["results"] for part in (fails, ends)] == [[{"mfu": 0.5}]] * 2


def test_what_is_missing_is_said_before_anything_starts(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu_all = script("gpu_all")
    monkeypatch.setattr(gpu_all, "missing_packages", lambda names: [name for name in names if name in ("pytest", "x")])
    monkeypatch.setattr(gpu_all, "gpu_facts", lambda: {"gpu": None})
    monkeypatch.setattr(sys, "argv", ["gpu_all.py", "--tiny", "--out", str(tmp_path), "--parts", "tests"])
    assert gpu_all.main() == 1
    assert capsys.readouterr().out.startswith("not here: pytest: no tests")
    (part,) = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert (part["state"], part["why"]) == ("left out", "pytest is not here")
    monkeypatch.setattr(gpu_all, "NEEDED", ("x",))
    assert gpu_all.main() == 2
    assert "needed, and not here: x" in capsys.readouterr().out


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("random_text").random_store(
            tmp_path_factory.mktemp("gpu") / "store", 400, 30_000
        )
    finally:
        sys.path.remove(str(BENCHMARKS))
        del sys.modules["random_text"]


def test_a_model_of_minutes_comes_back_in_float16(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run fails; the second is made without torch.compile."""
    archive = tmp_path / "store.tar.xz"
    with tarfile.open(archive, "w:xz", preset=0) as tar:
        tar.add(store.directory, "store")
    asked: list[list[str]] = []

    def run(words: list[str], log: Path, seconds: float) -> int:
        from bothways.cli import main

        asked.append(words)
        log.write_text("a line\n")
        if len(asked) == 1:
            return 1
        at = words.index("--minutes")
        return main([*words[:at], "--steps", "2", *words[at + 2 :]])

    monkeypatch.setattr(train_on_gpu, "run_until", run)
    small = [
        "--tokens-per-step",
        "300",
        "--sequence-length",
        "32",
        "--max-position-embeddings",
        "64",
        "--device",
        "cpu",
    ]
    words = ["train_on_gpu.py", str(archive), "--out", str(tmp_path / "out"), "--sizes", "tiny", "--part-mib", "0.25"]
    monkeypatch.setattr(sys, "argv", [*words, "--", *small])
    assert train_on_gpu.main() == 0
    assert "--compile" not in asked[0]
    assert asked[1][-3:] == ["--compile", "off", "--overwrite"]
    (made,) = json.loads((tmp_path / "out" / "train.json").read_text())["sizes"]
    assert [run["exit_code"] for run in made["runs"]] == [1, 0]
    assert made["finished"]
    parts = [tmp_path / "out" / name for name in made["files"]]
    assert len(parts) > 1
    assert all(path.stat().st_size <= 2**18 for path in parts)
    (tmp_path / "whole.tar.gz").write_bytes(b"".join(path.read_bytes() for path in parts))
    with tarfile.open(tmp_path / "whole.tar.gz") as tar:
        tar.extractall(tmp_path / "back", filter="data")
    back = tmp_path / "back" / "tiny"
    assert {path.name for path in back.iterdir()} == {"model", "metrics.jsonl", "run.json", "tiny.log"}
    assert {str(tensor.dtype) for tensor in load_file(back / "model" / "model.safetensors").values()} == {"float16"}
    assert len(bw.load(back / "model", "cpu").fill("w1 [MASK] w3")[0]) == 5


def test_a_command_that_takes_too_long_is_asked_to_stop(tmp_path: Path) -> None:
    assert train_on_gpu.run_until(["--version"], tmp_path / "log", 0.0) == -signal.SIGTERM
