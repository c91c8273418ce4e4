"""Builds `bothways/native/*.cpp` with whatever C++ compiler there is; without one Bothways is pure Python.

One library for each kind of CPU, by torch's names of them; which is loaded is decided where it runs.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KINDS = {"avx2": "x86-64-v3", "avx512": "x86-64-v4"}
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread")
ATTEMPTS = (["-fopenmp"], [])  # without OpenMP the parts for training work on one thread


class NativeBuild(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if build(Path(self.root) / "bothways" / "native", self.app.display_info):
            build_data["artifacts"].append("bothways/native/native_*.so")
            build_data["pure_python"] = False
            build_data["infer_tag"] = True


def build(folder: Path, say: Any = print) -> list[Path]:
    """The libraries that could be built, beside their sources."""
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "c++")), None)
    if platform.machine().lower() not in ("x86_64", "amd64") or os.name != "posix" or compiler is None:
        say("bothways: no C++ compiler for x86-64 here; torch's own kernels do the work")
        return []
    code = sorted(folder.glob("*.cpp"))
    read = b"".join(path.read_bytes() for path in sorted([*code, *folder.glob("*.h")]))  # as `native.fingerprint`
    flags = [*FLAGS, f"-DBOTHWAYS_SOURCE={zlib.crc32(read)}"]
    built = []
    for kind, march in KINDS.items():
        library = folder / f"native_{kind}.so"
        partial = library.with_suffix(".partial")
        command = [*compiler.split(), *flags, f"-march={march}", "-o", str(partial), *map(str, code)]
        for more in ATTEMPTS:
            problem = _problem([*command, *more])
            if not problem:
                partial.replace(library)  # a process that has the old one open keeps it
                built.append(library)
                break
            say(f"bothways: {' '.join([compiler, *more])} cannot build for {kind}: {problem}")
    if not built:
        say("bothways: torch's own kernels do the work")
    return built


def _problem(command: list[str]) -> str:
    """What the compiler had to say, in a line; nothing where it succeeded."""
    try:
        run = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        return str(error)
    if run.returncode == 0:
        return ""
    said = run.stderr.strip().splitlines() or [f"exit status {run.returncode}"]
    return next((line for line in said if "error" in line), said[-1])
