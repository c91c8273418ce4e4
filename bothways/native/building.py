"""How the compiled libraries are built, and how a library is recognised as built from this version's sources.

This file imports the standard library only: `hatch_build.py`, which has no torch yet, loads it by its path.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

# A variant's name, after the instructions that it needs, and the compiler's flags for it.
VARIANTS = {
    "avx2": ("-march=x86-64-v3",),
    "avx_vnni": ("-march=x86-64-v3", "-mavxvnni"),
    "avx512": ("-march=x86-64-v4",),
    "avx512_vnni": ("-march=x86-64-v4", "-mavx512vnni"),
    "avx512_bf16": ("-march=x86-64-v4", "-mavx512vnni", "-mavx512bf16"),
}
COMMON_FLAGS = ("-O3", "-std=c++20", "-shared", "-fPIC", "-pthread")
OPENMP_FLAGS = (("-fopenmp",), ())  # tried in this order; without OpenMP all of it runs on one thread


def source_files(folder: Path) -> list[Path]:
    """The C++ sources and headers in `folder`, sorted by name."""
    return sorted([*folder.glob("*.cpp"), *folder.glob("*.h")])


def compiler_flags(variant: str, openmp: Sequence[str]) -> list[str]:
    """The compiler's flags for a variant, a key of `VARIANTS`, and a member of `OPENMP_FLAGS`."""
    return [*COMMON_FLAGS, *VARIANTS[variant], *openmp]


def fingerprint(folder: Path, flags: Sequence[str]) -> int:
    """The CRC-32 of the sources and the flags. A library stores it, and is refused where its CRC-32 differs."""
    return zlib.crc32(b"".join([*(path.read_bytes() for path in source_files(folder)), " ".join(flags).encode()]))


def accepted_fingerprints(folder: Path, variant: str) -> list[int]:
    """The fingerprints that a library of this variant may store: with OpenMP and without."""
    return [fingerprint(folder, compiler_flags(variant, openmp)) for openmp in OPENMP_FLAGS]
