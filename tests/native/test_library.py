"""Which compiled library is called, and which is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from bothways import native


def test_a_library_of_other_sources_is_not_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kind = torch.backends.cpu.get_cpu_capability().lower()
    path = native.FOLDER / f"native_{kind}.so"
    assert native.opened(path) is not None
    for source in native.sources(native.FOLDER):
        shutil.copy(source, tmp_path)
    monkeypatch.setattr(native, "FOLDER", tmp_path)
    assert native.opened(path) is not None
    with (tmp_path / "vectors.h").open("a") as file:
        file.write("// another\n")
    assert native.opened(path) is None


def test_what_is_no_library_is_none() -> None:
    assert native.opened(native.FOLDER / "vectors.h") is None
    assert native.opened(native.FOLDER / "nothing.so") is None
