"""The compiled library, and the functions of its headers, at every width of vectors that they are built for."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from bothways.native import building
from bothways.native import loading as native

# Numbers are tested here and not speed: -O1 compiles in two thirds of the time of -O2.
PORTABLE_FLAGS = ("-O1", "-std=c++20", "-shared", "-fPIC", "-pthread", "-fopenmp", "-Wno-psabi")
WIDTHS = ["installed", "wide", "narrow"]  # as an install builds them; 16 lanes and 4 lanes, on whatever this CPU has


def compiler() -> str:
    """A command, `tools/sanitize.py`'s with its flags."""
    found = os.environ.get("CXX") or shutil.which("g++")
    if found is None:
        pytest.skip("there is no C++ compiler on this machine")
    return found


def variant_for_cpu() -> str:
    variants = native._variants_for_cpu()
    if not variants:
        pytest.skip("nothing is built for this CPU")
    return variants[0]


def copy_sources(folder: Path, width: str) -> None:
    """Copies the C++ sources, with the number of lanes fixed for "wide" and "narrow"."""
    for source in building.source_files(native.FOLDER):
        code = source.read_text()
        if width != "installed":
            code = code.replace("#if defined(__AVX512F__)", f"#if {int(width == 'wide')}")
            code = code.replace("defined(__AVX2__)", "0")
        (folder / source.name).write_text(code)


def portable_flags() -> tuple[str, ...]:
    """The flags for "wide" and "narrow": with AVX2, where this CPU has it, 16 lanes are two registers and not four."""
    has_avx2 = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    return (*PORTABLE_FLAGS, *(("-march=x86-64-v3",) if has_avx2 else ()))


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], None]) -> Path:
    """A folder that `build` fills: by one of the processes of pytest-xdist, while the others wait for it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            folder.mkdir()
            build(folder)
            (folder / "done").touch()
    return folder


def compile_library(path: Path, sources: Sequence[Path], flags: Sequence[str]) -> None:
    command = [*compiler().split(), *flags, "-o", str(path), *map(str, sources)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="session", params=WIDTHS)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler()
    if request.param == "installed":
        variant_for_cpu()
        installed = native.library()
        assert installed is not None, "the install had a compiler and built nothing"
        return installed
    fingerprint = f"-DBOTHWAYS_FINGERPRINT={building.accepted_fingerprints(native.FOLDER, 'avx2')[0]}"

    def build(folder: Path) -> None:
        copy_sources(folder, request.param)
        compile_library(folder / "native.so", sorted(folder.glob("*.cpp")), [*portable_flags(), fingerprint])

    folder = built_once(tmp_path_factory, f"library-{request.param}", build)
    built = native.open_library(folder / "native.so", "avx2")
    assert built is not None
    assert built.bothways_panel() == (32 if request.param == "wide" else 8)
    return built


@pytest.fixture(scope="session", params=WIDTHS)
def probe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The functions of `probe.cpp`."""
    installed = request.param == "installed"
    flags = building.compiler_flags(variant_for_cpu(), []) if installed else portable_flags()

    def build(folder: Path) -> None:
        copy_sources(folder, request.param)
        compile_library(folder / "probe.so", [Path(__file__).with_name("probe.cpp")], [*flags, f"-I{folder}"])

    folder = built_once(tmp_path_factory, f"probe-{request.param}", build)
    loaded = ctypes.CDLL(str(folder / "probe.so"))
    number, pointer, key = ctypes.c_int64, ctypes.c_void_p, ctypes.c_uint64
    for function in (loaded.probe_exponential, loaded.probe_gelu, loaded.probe_gelu_slope):
        function.argtypes = [pointer, pointer, number]
    loaded.probe_softmax.argtypes = [pointer, number, number, ctypes.c_double]
    loaded.probe_layer_norm.argtypes = [pointer, number, pointer, pointer, ctypes.c_double]
    for multiply in (loaded.probe_multiply_bfloat16, loaded.probe_multiply_int8):
        multiply.argtypes = [pointer, pointer, number, number, number, pointer]
    loaded.probe_column_levels.restype = number
    loaded.probe_splitmix64.argtypes, loaded.probe_splitmix64.restype = [key], key
    loaded.probe_row_key.argtypes, loaded.probe_row_key.restype = [key, key, number], key
    return loaded
