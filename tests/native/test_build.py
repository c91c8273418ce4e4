"""What an install builds, with compilers that can do less."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

import hatch_build

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
        ("-nothing", ["avx2", "avx512"], []),
        ("-fopenmp", ["avx2", "avx512"], ["-fopenmp cannot build for avx2: nothing.cpp: error: no -fopenmp here"]),
        ("-march=x86-64-v4", ["avx2"], ["cannot build for avx512: nothing.cpp: error: no -march=x86-64-v4 here"]),
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
    assert sorted(tmp_path.glob("*.so")) == built
    for part in said:
        assert any(part in line for line in lines), lines
    assert bool(lines) == bool(said)


def test_a_compiler_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    lines: list[str] = []
    assert hatch_build.build(tmp_path, lines.append) == []
    assert "No such file or directory" in lines[0]
    assert lines[-1] == "bothways: torch's own kernels do the work"
