"""Memory between steps: what was freed is had again without asking the system for it, and code for shapes is forgotten.

Each check has a process of its own: in the holes that other tests left in the heap pages may be missing already, and
oneDNN asks only once what it may keep.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bothways.train import memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="allocator settings are glibc's")
LARGE, MEGABYTE = 64 << 20, 1 << 20


@pytest.mark.parametrize("check", ["kept", "nested", "forgotten"])
def test_memory_between_steps(check: str) -> None:
    names = (*memory.GLIBC_VARIABLES, *memory.ONEDNN_CACHE_CAPACITY, "GLIBC_TUNABLES")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    run = subprocess.run([sys.executable, __file__, check], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_settings_of_the_user_stay() -> None:
    for name, value in (("MALLOC_MMAP_THRESHOLD_", "65536"), ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=65536")):
        run = subprocess.run([sys.executable, __file__, "kept"], env={**os.environ, name: value}, capture_output=True)
        assert b"pages were made anew" in run.stderr


def faults_of_a_tensor(size: int) -> int:
    """Pages that the system had to make for a tensor of so many bytes, which is freed again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(size, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def faults_of_the_second() -> None:
    faults_of_a_tensor(LARGE)
    pages, faults = LARGE // 2 // resource.getpagesize(), faults_of_a_tensor(LARGE // 2)
    assert faults < pages / 10, f"{faults} of {pages} pages were made anew"


def kept() -> None:
    with memory.hold_freed_memory():
        faults_of_the_second()
        within = resident()
    assert resident() < within - LARGE / 2, f"{within} bytes within, {resident()} after"


def nested() -> None:
    with memory.hold_freed_memory():
        with memory.hold_freed_memory():
            pass
        faults_of_the_second()


def forgotten() -> None:
    memory.limit_onednn_cache()
    weight = torch.ones(64, 64, dtype=torch.bfloat16)
    for rows in range(1, 401):
        torch.ones(rows, 64, dtype=torch.bfloat16) @ weight
        if rows == 200:
            before = resident()
    assert resident() < before + 10 * MEGABYTE, f"{(resident() - before) / MEGABYTE:.0f} MB more for 200 shapes"


if __name__ == "__main__":
    {"kept": kept, "nested": nested, "forgotten": forgotten}[sys.argv[1]]()
