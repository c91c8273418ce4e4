"""Which compiled library is called, and which is not."""

from __future__ import annotations

import ctypes
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hatch_build
from bothways.inference.compiled import EmbeddingTables, EncoderCall, LayerWeights, Norm
from bothways.inference.packed_linear import Matrix, ProductCall
from bothways.model.kernels.compiled import AttentionCall
from bothways.model.kernels.cross_entropy import CrossEntropyCall
from bothways.model.kernels.fused import BiasGeluCall, ResidualNormCall
from bothways.native import building
from bothways.native import loading as native

can_build = pytest.mark.skipif(
    shutil.which("g++") is None or platform.machine() != "x86_64", reason="nothing can be built here"
)
built = pytest.mark.skipif(native.library() is None, reason="nothing was built for this CPU")


@built
def test_a_library_of_other_sources_is_not_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    paths = {kind: native.FOLDER / f"native_{kind}.so" for kind in building.VARIANTS}
    kind, path = next((kind, path) for kind, path in paths.items() if native.open_library(path, kind))
    for source in building.source_files(native.FOLDER):
        shutil.copy(source, tmp_path)
    monkeypatch.setattr(native, "FOLDER", tmp_path)
    assert native.open_library(path, kind) is not None
    with (tmp_path / "vectors.h").open("a") as file:
        file.write("// another\n")
    assert native.open_library(path, kind) is None


STRUCTURES = (AttentionCall, Matrix, Norm, LayerWeights, EmbeddingTables, EncoderCall, ProductCall)
STRUCTURES += (BiasGeluCall, ResidualNormCall, CrossEntropyCall)
SIZES = {structure.__name__: ctypes.sizeof(structure) for structure in STRUCTURES}
NAMES = (
    "encode",
    "panel",
    "words",
    "scratch",
    "pack",
    "multiply",
    "drop_float32",
    "drop_bfloat16",
    *native.TRAINING_CALLS,
)


def tiny_source(sizes: dict[str, int]) -> str:
    """A library of functions that do nothing, with these sizes of structures."""
    functions = [f"long long bothways_{name}() {{ return 0; }}" for name in NAMES]
    functions += [f"long long bothways_sizeof_{name}() {{ return {size}; }}" for name, size in sizes.items()]
    fingerprint = "long long bothways_fingerprint() { return BOTHWAYS_FINGERPRINT; }"
    return "\n".join(['extern "C" {', fingerprint, *functions, "}"])


@can_build
@pytest.mark.parametrize(
    ("changed", "value"),
    [
        ("COMMON_FLAGS", (*building.COMMON_FLAGS, "-ffast-math")),
        ("VARIANTS", {"avx2": ("-march=x86-64-v2",)}),
        ("OPENMP_FLAGS", (("-fopenmp", "-funroll-loops"),)),
    ],
)
def test_a_library_of_other_flags_is_not_called(
    changed: str, value: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tiny.cpp").write_text(tiny_source(SIZES))
    path = hatch_build.build(tmp_path)[0]
    monkeypatch.setattr(native, "FOLDER", tmp_path)
    assert native.open_library(path, "avx2") is not None
    monkeypatch.setattr(building, changed, value)
    assert native.open_library(path, "avx2") is None


@can_build
def test_a_library_whose_structures_have_other_sizes_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(native, "FOLDER", tmp_path)
    changed, missing = {**SIZES, "EncoderCall": SIZES["EncoderCall"] + 8}, dict(list(SIZES.items())[1:])
    for sizes, message in ((changed, "EncoderCall has"), (missing, "does not tell the size of AttentionCall")):
        for variant in building.VARIANTS:
            (tmp_path / f"native_{variant}.so").unlink(missing_ok=True)
        (tmp_path / f"{len(sizes)}.cpp").write_text(tiny_source(sizes))
        path = hatch_build.build(tmp_path)[0]
        with pytest.raises(AssertionError, match=message):
            native.open_library(path.rename(tmp_path / f"{len(sizes)}.so"), "avx2")
        (tmp_path / f"{len(sizes)}.cpp").unlink()


@built
def test_a_structure_of_another_size_is_an_error_when_the_library_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "MIRRORS", [])
    fields = {"_fields_": [("q", ctypes.c_void_p)]}
    with pytest.raises(AssertionError, match="AttentionCall has 8 bytes in Python and 160 bytes in"):
        native.mirror_structure(type("AttentionCall", (ctypes.Structure,), fields))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_fields_are_those_of_the_cpp_structure_in_its_order(structure: type[ctypes.Structure]) -> None:
    sources = "\n".join(path.read_text() for path in building.source_files(native.FOLDER))
    (body,) = re.findall(rf"^struct {structure.__name__} {{\n(.*?)^}};", sources, re.DOTALL | re.MULTILINE)
    code = re.sub(r"//.*", "", body)
    assert re.findall(r"(\w+)(?=[,;])", code) == [name for name, *_ in structure._fields_]
    assert structure in native.MIRRORS


def test_an_install_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import hatch_build; assert 'bothways' not in sys.modules"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=native.FOLDER.parents[1])
    assert run.returncode == 0, run.stderr


def test_what_is_no_library_is_none() -> None:
    assert native.open_library(native.FOLDER / "vectors.h", "avx2") is None
    assert native.open_library(native.FOLDER / "nothing.so", "avx2") is None


SHORT_OF_MEMORY = """
import resource, torch
from bothways.model.attention_mask import BOTH_WAYS
from bothways.model.kernels.compiled import attend_compiled
q = torch.ones(1_000_000, 1, 8)  # 32 MB, and so is what comes out; three copies of it are made on the way
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (50 << 20), -1))
try:
    attend_compiled(q, q, q, torch.tensor([len(q)]), BOTH_WAYS, 0.0)
except torch.OutOfMemoryError as error:
    print(error)
"""


@built
def test_without_enough_memory_it_is_an_error() -> None:
    run = subprocess.run([sys.executable, "-c", SHORT_OF_MEMORY], capture_output=True, text=True)
    assert run.stdout == "attention: memory ran out\n", run.stderr
