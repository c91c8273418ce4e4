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
from collections.abc import Iterator

# Parameters of glibc's mallopt(3). Setting one ends its own rule for thresholds, so afterwards they are left where that
# rule comes to when a block of 32 MB is freed.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4
WITHIN = {MMAP_MAX: 0, TRIM_THRESHOLD: (1 << 31) - 1, TOP_PAD: 64 << 20}
AFTERWARDS = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20, TOP_PAD: 128 << 10}

# More than the shapes of one forward and backward pass, which every layer shares.
SHAPES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "64"}


def forget_shapes() -> None:
    """Keep the code for few shapes, where the environment says nothing else. oneDNN asks at the first product of a
    process, so after that this does nothing."""
    for name, value in SHAPES.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Within, what is freed is kept for what comes; afterwards it is given back. Nothing happens without glibc."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt, trim = libc.mallopt, libc.malloc_trim
    except (OSError, AttributeError):
        yield
        return
    for name, value in WITHIN.items():
        mallopt(name, value)
    try:
        yield
    finally:
        for name, value in AFTERWARDS.items():
            mallopt(name, value)
        trim(0)
