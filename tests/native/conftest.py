"""The compiled library at every width of vectors that it is built for."""

from __future__ import annotations

import ctypes
import shutil
import subprocess

import pytest
import torch

from bothways import native
from bothways.native import building


@pytest.fixture(scope="module", params=["installed", "wide", "narrow"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """As it was installed; with the widths of AVX-512, on whatever this CPU has; with those of the plainest CPU."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no C++ compiler on this machine")
    if request.param == "installed":
        if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
            pytest.skip("nothing is built for this CPU")
        found = native.library()
        assert found is not None, "the install had a compiler and built nothing"
        return found
    wide = request.param == "wide"
    folder = tmp_path_factory.mktemp("built")
    for source in building.sources(native.FOLDER):
        code = source.read_text().replace("#if defined(__AVX512F__)", f"#if {int(wide)}")
        (folder / source.name).write_text(code.replace("defined(__AVX2__)", "0"))
    flags = ["-O2", "-std=c++17", "-shared", "-fPIC", "-pthread", "-fopenmp", "-Wno-psabi"]
    built = folder / "native.so"
    source = f"-DBOTHWAYS_SOURCE={building.accepted(native.FOLDER, 'avx2')[0]}"
    code = map(str, sorted(folder.glob("*.cpp")))
    subprocess.run([compiler, *flags, source, "-o", str(built), *code], check=True, capture_output=True)
    found = native.open_library(built, "avx2")
    assert found is not None
    assert found.bothways_panel() == (32 if wide else 8)
    return found
