"""Memory in training on a CPU: what a step frees is kept for the next, and shapes that do not come again are forgotten.

A step asks for the same large tensors as the one before. Left to itself, glibc gives such blocks back to the system as
they are freed, and the system has to zero them page by page when they are asked for again: a tenth of the time of a
step with 32 short texts.

For each shape of a product in bfloat16 oneDNN makes code, and keeps that of the last 1,024. Packed batches hardly ever
have a number of tokens twice, so it was 10 MB more with every step of MRPC, up to 2.5 GB.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator

# Parameters of glibc's mallopt(3). Setting one ends its own rule for thresholds, so afterwards they are left where that
# rule comes to when a block of 32 MB is freed.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4
WITHIN = {MMAP_MAX: 0, TRIM_THRESHOLD: -1, TOP_PAD: 64 << 20}  # -1: never
AFTERWARDS = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20, TOP_PAD: 128 << 10}
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_")

# More than the shapes of one forward and backward pass, which every layer shares.
SHAPES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "64"}


def limit_onednn_cache() -> None:
    """Keep the code for few shapes, where the environment says nothing else. oneDNN asks at the first product of a
    process, so after that this does nothing."""
    for name, value in SHAPES.items():
        if name.replace("ONEDNN_", "DNNL_") not in os.environ:  # its older name
            os.environ.setdefault(name, value)


_changing = threading.Lock()
_trainings = 0


@contextlib.contextmanager
def hold_freed_memory() -> Iterator[None]:
    """Within, what is freed is kept for what comes; at the end of the last of several it is given back.

    Nothing happens without glibc, or where the environment has settings for its allocator.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    _count(libc, 1)
    try:
        yield
    finally:
        _count(libc, -1)


def _count(libc: ctypes.CDLL, change: int) -> None:
    global _trainings
    with _changing:
        before, _trainings = _trainings, _trainings + change
        if before and _trainings:
            return
        for name, value in (WITHIN if _trainings else AFTERWARDS).items():
            libc.mallopt(name, value)
        if not _trainings:
            libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if any(name in os.environ for name in VARIABLES) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if libc.mallopt and libc.malloc_trim else None
    except (OSError, AttributeError):
        return None
