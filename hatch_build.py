"""Builds `bothways/native/*.cpp` with whatever C++ compiler there is; without one Bothways is pure Python.

It builds one library for each variant in `building.VARIANTS`; `bothways.native.library` chooses where it runs.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def _load_module(path: Path) -> Any:
    """Loads a module by its path, without its package, which imports torch."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


building = _load_module(Path(__file__).parent / "bothways" / "native" / "building.py")


class NativeBuild(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if build(Path(self.root) / "bothways" / "native", self.app.display_info):
            build_data["artifacts"].append("bothways/native/native_*.so")
            build_data["pure_python"] = False
            # the libraries are opened by ctypes, so that they fit every Python
            build_data["tag"] = f"py3-none-{re.sub('[-.]', '_', sysconfig.get_platform())}"


def build(folder: Path, report: Callable[[str], Any] = print) -> list[Path]:
    """Builds the libraries beside their sources in `folder`; returns the paths of those that could be built.

    A library whose build fails is reported with the compiler's error, and left out.
    """
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "c++")), None)
    if platform.machine().lower() not in ("x86_64", "amd64") or os.name != "posix" or compiler is None:
        report("bothways: no C++ compiler for x86-64 here; torch's own kernels do the work")
        return []
    command = [*compiler.split(), *map(str, sorted(folder.glob("*.cpp")))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        libraries = list(pool.map(lambda variant: _build_variant(folder, variant, command, report), building.VARIANTS))
    built = [library for library in libraries if library is not None]
    if not built:
        report("bothways: torch's own kernels do the work")
    return built


def _build_variant(folder: Path, variant: str, command: list[str], report: Callable[[str], Any]) -> Path | None:
    """The path of the library, with OpenMP if the compiler has it; None where it could not be built."""
    library = folder / f"native_{variant}.so"
    partial = library.with_suffix(".partial")
    for openmp in building.OPENMP_FLAGS:
        flags = building.compiler_flags(variant, openmp)
        fingerprint = f"-DBOTHWAYS_FINGERPRINT={building.fingerprint(folder, flags)}"
        error = _compile_error([*command, *flags, fingerprint, "-o", str(partial)])
        if not error:
            partial.replace(library)  # a process that has the old one open keeps it
            return library
        report(f"bothways: {' '.join([command[0], *openmp])} cannot build for {variant}: {error}")
    return None


def _compile_error(command: list[str]) -> str:
    """Runs the compiler; returns one line of its error, or an empty string where it succeeded."""
    try:
        run = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        return str(error)
    if run.returncode == 0:
        return ""
    lines = run.stderr.strip().splitlines() or [f"exit status {run.returncode}"]
    return next((line for line in lines if "error" in line), lines[-1])
