"""Which compiled library is called, and which is not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bothways import native

built = pytest.mark.skipif(native.library() is None, reason="nothing was built for this CPU")


@built
def test_a_library_of_other_sources_is_not_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = next(path for path in native.FOLDER.glob("native_*.so") if native.open_library(path))
    for source in native.sources(native.FOLDER):
        shutil.copy(source, tmp_path)
    monkeypatch.setattr(native, "FOLDER", tmp_path)
    assert native.open_library(path) is not None
    with (tmp_path / "vectors.h").open("a") as file:
        file.write("// another\n")
    assert native.open_library(path) is None


def test_what_is_no_library_is_none() -> None:
    assert native.open_library(native.FOLDER / "vectors.h") is None
    assert native.open_library(native.FOLDER / "nothing.so") is None


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
