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
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread", "-fopenmp")


class CompiledEncoder(BuildHookInterface):
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
        try:
            subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            say(f"bothways: {compiler} cannot build for {kind}: {error}; torch's own kernels do the work")
            continue
        partial.replace(library)  # a process that has the old one open keeps it
        built.append(library)
    return built
