"""Memory that a training step frees stays with the process, for the next step, which asks for the same large tensors.

Left to itself, glibc gives such blocks back to the system as they are freed, and the system has to zero them page by
page when they are asked for again: a tenth of the time of a step with 32 short texts.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

# Parameters of glibc's mallopt(3), with what they are here and the defaults.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
HERE = {MMAP_MAX: 0, TRIM_THRESHOLD: (1 << 31) - 1, TOP_PAD: 64 << 20}
DEFAULTS = {MMAP_MAX: 65536, TRIM_THRESHOLD: 128 << 10, TOP_PAD: 128 << 10}


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Within, what is freed is kept for what comes; afterwards it is given back. Nothing happens without glibc."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt, trim = libc.mallopt, libc.malloc_trim
    except (OSError, AttributeError):
        yield
        return
    for name, value in HERE.items():
        mallopt(name, value)
    try:
        yield
    finally:
        for name, value in DEFAULTS.items():
            mallopt(name, value)
        trim(0)
