"""What an install builds, with compilers that can do less."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import hatch_build
from bothways.native.building import VARIANTS
from bothways.version import __version__

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere nothing is built")


def compiler(folder: Path, refuses: str) -> Path:
    """Writes what -o names, unless an argument is one that it refuses."""
    path = folder / "c++"
    path.write_text(f"""#!/bin/sh
for argument; do
    case "$argument" in {refuses}) echo "nothing.cpp: error: no $argument here" >&2; exit 1;; esac
    if [ "$before" = -o ]; then echo built > "$argument"; fi
    before="$argument"
done
""")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("refuses", "kinds", "said"),
    [
        ("-nothing", list(VARIANTS), []),
        ("-fopenmp", list(VARIANTS), ["-fopenmp cannot build for avx2: nothing.cpp: error: no -fopenmp here"]),
        ("-march=x86-64-v4", ["avx2", "avx_vnni"], ["cannot build for avx512: nothing.cpp: error: no -march=x86"]),
        ("-mavxvnni", ["avx2", "avx512", "avx512_vnni", "avx512_bf16"], ["cannot build for avx_vnni: "]),
        ("-O3", [], ["cannot build for avx2: nothing.cpp: error: no -O3 here", "torch's own kernels do the work"]),
    ],
)
def test_what_is_built(
    refuses: str, kinds: list[str], said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some.cpp").write_text("")
    monkeypatch.setenv("CXX", str(compiler(tmp_path, refuses)))
    lines: list[str] = []
    built = hatch_build.build(tmp_path, lines.append)
    assert built == [tmp_path / f"native_{kind}.so" for kind in kinds]
    assert all(path.read_text() == "built\n" for path in built)
    assert sorted(tmp_path.glob("*.so")) == sorted(built)
    for part in said:
        assert any(part in line for line in lines), lines
    assert bool(lines) == bool(said)


def test_a_compiler_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    lines: list[str] = []
    assert hatch_build.build(tmp_path, lines.append) == []
    assert "No such file or directory" in lines[0]
    assert lines[-1] == "bothways: torch's own kernels do the work"


ROOT = Path(hatch_build.__file__).parent


def wheel(folder: Path, compiler: Path) -> zipfile.ZipFile:
    """The wheel of a copy of this repository, its libraries built by `compiler`."""
    copy, out = folder / "copy", folder / "out"
    shutil.copytree(ROOT / "bothways", copy / "bothways", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copytree(ROOT / "recipes", copy / "recipes")
    (copy / "tests").mkdir()
    (copy / "tests" / "test_nothing.py").write_text("")
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    environment = {"CXX": str(compiler), "PATH": "/usr/bin:/bin"}
    subprocess.run(command, cwd=copy, env=environment, check=True, capture_output=True)
    (path,) = out.iterdir()
    return zipfile.ZipFile(path)


@pytest.mark.skipif(sys.platform != "linux", reason="the name of another platform's wheel")
@pytest.mark.parametrize(("refuses", "tag"), [("-nothing", "py3-none-linux_x86_64"), ("-O3", "py3-none-any")])
def test_the_wheel(refuses: str, tag: str, tmp_path: Path) -> None:
    """Of any Python: the libraries are opened by ctypes."""
    pytest.importorskip("hatchling")
    found = wheel(tmp_path, compiler(tmp_path, refuses))
    assert Path(found.filename or "").name == f"bothways-{__version__}-{tag}.whl"
    names, info = set(found.namelist()), f"bothways-{__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"bothways", info}
    assert {"bothways/py.typed", "bothways/recipes/bert-base.toml", f"{info}/licenses/LICENSE"} <= names
    assert "bothways/samples/helpdesk/tickets-train.jsonl" in names
    libraries = {f"bothways/native/native_{kind}.so" for kind in VARIANTS}
    assert {name for name in names if name.endswith(".so")} == (libraries if "linux" in tag else set())
    metadata = found.read(f"{info}/METADATA").decode()
    assert "License-Expression: Apache-2.0\nLicense-File: LICENSE\n" in metadata
    assert f"Root-Is-Purelib: {str('any' in tag).lower()}\nTag: {tag}\n" in found.read(f"{info}/WHEEL").decode()


@pytest.mark.skipif(shutil.which("g++") is None, reason="nothing can be built here")
def test_a_library_of_the_same_sources_and_flags_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hatch_build.building, "VARIANTS", {"avx2": VARIANTS["avx2"]})
    source = tmp_path / "tiny.cpp"
    source.write_text('extern "C" long long bothways_fingerprint() { return BOTHWAYS_FINGERPRINT; }\n')
    (library,) = hatch_build.build(tmp_path)
    monkeypatch.setenv("CXX", str(compiler(tmp_path, "-O3")))
    assert hatch_build.build(tmp_path) == [library]
    source.write_text(f"{source.read_text()}\n")
    assert hatch_build.build(tmp_path, str) == []
    library.write_text("no library")
    assert hatch_build.build(tmp_path, str) == []


@pytest.mark.parametrize(("value", "pure"), [(None, False), ("0", False), ("1", True)])
def test_whether_nothing_is_compiled(value: str | None, pure: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BOTHWAYS_PURE", raising=False)
    if value is not None:
        monkeypatch.setenv("BOTHWAYS_PURE", value)
    assert hatch_build.is_pure() is pure
    monkeypatch.setenv("BOTHWAYS_PURE", "yes")
    with pytest.raises(SystemExit, match="BOTHWAYS_PURE=yes: 1 builds without compiled code, 0 with it"):
        hatch_build.is_pure()
