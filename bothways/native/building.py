"""How the compiled libraries are built, and how a library is recognised as built from this version's sources.

This file imports the standard library only: `hatch_build.py`, which has no torch yet, loads it by its path.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

ARCHITECTURES = {"avx2": "x86-64-v3", "avx512": "x86-64-v4"}  # torch's name of the CPU's vectors: the compiler's -march
COMMON_FLAGS = ("-O3", "-std=c++20", "-shared", "-fPIC", "-pthread")
OPENMP_FLAGS = (("-fopenmp",), ())  # tried in this order; without OpenMP the training kernels run on one thread


def source_files(folder: Path) -> list[Path]:
    """The C++ sources and headers in `folder`, sorted by name."""
    return sorted([*folder.glob("*.cpp"), *folder.glob("*.h")])


def compiler_flags(variant: str, openmp: Sequence[str]) -> list[str]:
    """The compiler's flags for a variant, a key of `ARCHITECTURES`, and a member of `OPENMP_FLAGS`."""
    return [*COMMON_FLAGS, f"-march={ARCHITECTURES[variant]}", *openmp]


def fingerprint(folder: Path, flags: Sequence[str]) -> int:
    """The CRC-32 of the sources and the flags. A library stores it, and is refused where its CRC-32 differs."""
    return zlib.crc32(b"".join([*(path.read_bytes() for path in source_files(folder)), " ".join(flags).encode()]))


def accepted_fingerprints(folder: Path, variant: str) -> list[int]:
    """The fingerprints that a library of this variant may store: with OpenMP and without."""
    return [fingerprint(folder, compiler_flags(variant, openmp)) for openmp in OPENMP_FLAGS]
