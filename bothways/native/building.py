"""How the libraries are built, and how one is known to be of this version.

This file imports the standard library only: an install, which has no torch yet, reads it by its path.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

KINDS = {"avx2": "x86-64-v3", "avx512": "x86-64-v4"}  # torch's names of CPUs, and the compiler's
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread")
ATTEMPTS = (("-fopenmp",), ())  # without OpenMP the parts for training work on one thread


def sources(folder: Path) -> list[Path]:
    """The files that a library is built from, in order."""
    return sorted([*folder.glob("*.cpp"), *folder.glob("*.h")])


def flags_for(kind: str, more: Sequence[str]) -> list[str]:
    """The compiler's flags for a kind of CPU; more: one of `ATTEMPTS`."""
    return [*FLAGS, f"-march={KINDS[kind]}", *more]


def fingerprint(folder: Path, flags: Sequence[str]) -> int:
    """The CRC-32 of the sources and the flags, which a library holds: one that holds another is never called."""
    return zlib.crc32(b"".join([*(path.read_bytes() for path in sources(folder)), " ".join(flags).encode()]))


def accepted(folder: Path, kind: str) -> list[int]:
    """The fingerprints that a library for this kind of CPU may hold."""
    return [fingerprint(folder, flags_for(kind, more)) for more in ATTEMPTS]
