"""Builds `bothways/native/*.cpp` with whatever C++ compiler there is; without one Bothways is pure Python.

One library for each kind of CPU, by torch's names of them; which is loaded is decided where it runs.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def _by_path(path: Path) -> Any:
    """A module without its package, which imports torch."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


building = _by_path(Path(__file__).parent / "bothways" / "native" / "building.py")


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
    code = map(str, sorted(folder.glob("*.cpp")))
    command, built = [*compiler.split(), *code], []
    for kind in building.KINDS:
        library = folder / f"native_{kind}.so"
        partial = library.with_suffix(".partial")
        for more in building.ATTEMPTS:
            flags = building.flags_for(kind, more)
            made_of = f"-DBOTHWAYS_SOURCE={building.fingerprint(folder, flags)}"
            problem = _problem([*command, *flags, made_of, "-o", str(partial)])
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
