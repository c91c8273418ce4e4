"""Builds `bothways/native/*.cpp` with whatever C++ compiler there is; without one Bothways is pure Python.

It builds one library for each variant in `building.VARIANTS`; `bothways.native.loading` chooses where it runs. A
library that is there and was built of the same sources with the same flags is kept. Where BOTHWAYS_PURE=1 is in the
environment nothing is compiled, and the wheel is `py3-none-any`.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable
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


PURE = "BOTHWAYS_PURE"  # of the environment: 1 for a wheel without compiled code, 0 or nothing for one with it
STORED_FINGERPRINT = (
    "import ctypes, sys; f = ctypes.CDLL(sys.argv[1]).bothways_fingerprint; f.restype = ctypes.c_int64; print(f())"
)

building = _load_module(Path(__file__).parent / "bothways" / "native" / "building.py")


class NativeBuild(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return  # an sdist has the sources alone
        if is_pure():
            self.app.display_info(f"bothways: {PURE}=1, so nothing is compiled; torch's own kernels do the work")
        elif build(Path(self.root) / "bothways" / "native", self.app.display_info):
            build_data["artifacts"].append("bothways/native/native_*.so")
            build_data["pure_python"] = False
            # the libraries are opened by ctypes, so that they fit every Python
            build_data["tag"] = f"py3-none-{re.sub('[-.]', '_', sysconfig.get_platform())}"


def is_pure() -> bool:
    """Whether the environment asks for a wheel without compiled code.

    Raises SystemExit where `BOTHWAYS_PURE` is neither 0 nor 1.
    """
    value = os.environ.get(PURE, "0")
    if value not in ("0", "1"):
        raise SystemExit(f"bothways: {PURE}={value}: 1 builds without compiled code, 0 with it")
    return value == "1"


def build(folder: Path, report: Callable[[str], Any] = print, variants: Iterable[str] = ()) -> list[Path]:
    """Builds the libraries beside their sources in `folder`; returns the paths of those that could be built.

    variants: keys of `building.VARIANTS`; without any, all.
    A library whose build fails is reported with the compiler's error, and left out.
    """
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "c++")), None)
    if platform.machine().lower() not in ("x86_64", "amd64") or os.name != "posix" or compiler is None:
        report("bothways: no C++ compiler for x86-64 here; torch's own kernels do the work")
        return []
    command = [*compiler.split(), *map(str, sorted(folder.glob("*.cpp")))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        build_variant = functools.partial(_build_variant, folder, command, report)
        libraries = list(pool.map(build_variant, variants or building.VARIANTS))
    built = [library for library in libraries if library is not None]
    if not built:
        report("bothways: torch's own kernels do the work")
    return built


def _build_variant(folder: Path, command: list[str], report: Callable[[str], Any], variant: str) -> Path | None:
    """The path of the library, with OpenMP if the compiler has it; None where it could not be built."""
    library = folder / f"native_{variant}.so"
    partial = library.with_suffix(".partial")
    if _stored_fingerprint(library) in building.accepted_fingerprints(folder, variant):
        return library
    for openmp in building.OPENMP_FLAGS:
        flags = building.compiler_flags(variant, openmp)
        fingerprint = f"-DBOTHWAYS_FINGERPRINT={building.fingerprint(folder, flags)}"
        error = _compile_error([*command, *flags, fingerprint, "-o", str(partial)])
        if not error:
            partial.replace(library)  # a process that has the old one open keeps it
            return library
        report(f"bothways: {' '.join([command[0], *openmp])} cannot build for {variant}: {error}")
    return None


def _stored_fingerprint(library: Path) -> int | None:
    """What a library says it was built from; None where it is missing or cannot be asked.

    Another process asks it: this processor may lack the instructions that it was built for.
    """
    if not library.exists():
        return None
    asked = subprocess.run([sys.executable, "-c", STORED_FINGERPRINT, str(library)], capture_output=True, text=True)
    return int(asked.stdout) if asked.returncode == 0 else None


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
