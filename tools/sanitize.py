"""The tests of the compiled code under the sanitizers of addresses and undefined behaviour: `make sanitize`.

A copy of the package is built by `g++ -fsanitize=…`, for this processor alone, and the tests that call compiled code
run on it. Arguments are pytest's, by default the tests in `TESTS`. What a sanitizer finds ends the run with its report.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bothways.native.loading import _variants_for_cpu

ROOT = Path(__file__).parents[1]
TESTS = [
    f"tests/native/test_{name}.py" for name in ("attention", "dropout", "encoder", "formats", "functions", "fused")
]
FLAGS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g")
PRELOADED = ("libasan.so", "libstdc++.so.6")  # before Python, which was not built with them


def main(arguments: list[str]) -> int:
    """The exit status of pytest; 2 where there is no g++, or nothing is compiled for this processor."""
    variants = _variants_for_cpu()[:1]
    if shutil.which("g++") is None or not variants:
        print("sanitize: needs g++, and a processor that compiled code is built for", file=sys.stderr)
        return 2
    compiler = " ".join(["g++", *FLAGS])
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        left_out = shutil.ignore_patterns("*.so", "__pycache__", "fixtures")
        for name in ("bothways", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=left_out)
        for name in ("hatch_build.py", "pyproject.toml"):
            shutil.copy(ROOT / name, copy)
        building = copy / "bothways" / "native" / "building.py"
        # a quarter of the compiler's time; the copy knows its libraries by its own flags
        building.write_text(building.read_text(encoding="utf-8").replace('"-O3"', '"-O1"'), encoding="utf-8")
        build = f"import hatch_build; hatch_build.build(hatch_build.Path('bothways/native'), print, {variants!r})"
        subprocess.run([sys.executable, "-c", build], cwd=copy, env={**os.environ, "CXX": compiler}, check=True)
        if not list(building.parent.glob("*.so")):
            return 2
        libraries = [_path_of(name) for name in PRELOADED]
        # a leak is of Python and torch, whose memory is theirs until the end
        options = {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
        environment = {**os.environ, **options, "CXX": compiler, "LD_PRELOAD": " ".join(libraries)}
        environment.pop("PYTHONPATH", None)
        command = [sys.executable, "-m", "pytest", *(arguments or TESTS)]
        return subprocess.run(command, cwd=copy, env=environment).returncode


def _path_of(library: str) -> str:
    found = subprocess.run(["g++", f"-print-file-name={library}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
