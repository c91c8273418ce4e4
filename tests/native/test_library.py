"""Which compiled library is called, and which is not."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hatch_build
from bothways import native
from bothways.native import building

built = pytest.mark.skipif(native.library() is None, reason="nothing was built for this CPU")


@built
def test_a_library_of_other_sources_is_not_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    paths = {kind: native.FOLDER / f"native_{kind}.so" for kind in building.KINDS}
    kind, path = next((kind, path) for kind, path in paths.items() if native.open_library(path, kind))
    for source in building.sources(native.FOLDER):
        shutil.copy(source, tmp_path)
    monkeypatch.setattr(native, "FOLDER", tmp_path)
    assert native.open_library(path, kind) is not None
    with (tmp_path / "vectors.h").open("a") as file:
        file.write("// another\n")
    assert native.open_library(path, kind) is None


NAMES = ("panel", "pack", "drop", "attend", "attend_backward")
FUNCTIONS = [f"long long bothways_{name}() {{ return 0; }}" for name in NAMES]
TINY = "\n".join(
    ['extern "C" {', "long long bothways_source() { return BOTHWAYS_SOURCE; }", *FUNCTIONS, "}"],
)


@pytest.mark.skipif(shutil.which("g++") is None or platform.machine() != "x86_64", reason="nothing can be built here")
@pytest.mark.parametrize(
    ("changed", "value"),
    [
        ("FLAGS", (*building.FLAGS, "-ffast-math")),
        ("KINDS", {"avx2": "x86-64-v2"}),
        ("ATTEMPTS", (("-fopenmp", "-funroll-loops"),)),
    ],
)
def test_a_library_of_other_flags_is_not_called(
    changed: str, value: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tiny.cpp").write_text(TINY)
    (path, _) = hatch_build.build(tmp_path)
    monkeypatch.setattr(native, "FOLDER", tmp_path)
    assert native.open_library(path, "avx2") is not None
    monkeypatch.setattr(building, changed, value)
    assert native.open_library(path, "avx2") is None


def test_an_install_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import hatch_build; assert 'bothways' not in sys.modules"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=native.FOLDER.parents[1])
    assert run.returncode == 0, run.stderr


def test_what_is_no_library_is_none() -> None:
    assert native.open_library(native.FOLDER / "vectors.h", "avx2") is None
    assert native.open_library(native.FOLDER / "nothing.so", "avx2") is None


SHORT_OF_MEMORY = """
import resource, torch
from bothways.model.kernels.compiled import attend_compiled
q = torch.ones(1_000_000, 1, 8)  # 32 MB, and so is what comes out; three copies of it are made on the way
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (50 << 20), -1))
try:
    attend_compiled(q, q, q, torch.tensor([len(q)]), False, 0.0)
except torch.OutOfMemoryError as error:
    print(error)
"""


@built
def test_without_enough_memory_it_is_an_error() -> None:
    run = subprocess.run([sys.executable, "-c", SHORT_OF_MEMORY], capture_output=True, text=True)
    assert run.stdout == "attention: memory ran out\n", run.stderr
