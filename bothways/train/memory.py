"""Two allocator settings for training on a CPU: glibc keeps freed blocks, and oneDNN's kernel cache is small.

A step asks for the same large tensors as the step before. By default glibc gives such blocks back to the system as they
are freed, and the system has to zero them page by page when they are asked for again: a tenth of the time of a step
with 32 short texts.

oneDNN generates code for each shape of a product in bfloat16 and keeps the code of the last 1,024 shapes. Packed
batches hardly ever have a number of tokens twice, so the cache grew by 10 MB a step on MRPC, up to 2.5 GB.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator

# Parameters of glibc's mallopt(3). Setting any of them ends glibc's own rule for thresholds, so afterwards they get the
# values to which that rule comes when a block of 32 MB is freed.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4
IN_TRAINING = {MMAP_MAX: 0, TRIM_THRESHOLD: -1, TOP_PAD: 64 << 20}  # -1: never
AFTER_TRAINING = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20, TOP_PAD: 128 << 10}
GLIBC_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_")

# Shapes whose code oneDNN keeps: more than those of one forward and backward pass, which every layer shares.
ONEDNN_CACHE_CAPACITY = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "64"}


def limit_onednn_cache() -> None:
    """Let oneDNN keep the code of `ONEDNN_CACHE_CAPACITY` shapes, unless the environment sets it. oneDNN reads these
    variables at the first product of a process, so after that this does nothing."""
    for name, value in ONEDNN_CACHE_CAPACITY.items():
        if name.replace("ONEDNN_", "DNNL_") not in os.environ:  # its older name
            os.environ.setdefault(name, value)


_changing = threading.Lock()
_trainings = 0


@contextlib.contextmanager
def hold_freed_memory() -> Iterator[None]:
    """While the context lasts, freed memory is kept for what is allocated next; it is given back when the last of
    nested or concurrent contexts ends.

    Does nothing without glibc, or where the environment has settings for its allocator.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    _add_trainings(libc, 1)
    try:
        yield
    finally:
        _add_trainings(libc, -1)


def _add_trainings(libc: ctypes.CDLL, change: int) -> None:
    """Count the contexts; the first sets glibc's parameters, the last sets them back."""
    global _trainings
    with _changing:
        before, _trainings = _trainings, _trainings + change
        if before and _trainings:
            return
        for name, value in (IN_TRAINING if _trainings else AFTER_TRAINING).items():
            libc.mallopt(name, value)
        if not _trainings:
            libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if any(name in os.environ for name in GLIBC_VARIABLES) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if libc.mallopt and libc.malloc_trim else None
    except (OSError, AttributeError):
        return None
