"""Memory between steps: what was freed is had again without asking the system for it."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bothways.train import memory

LARGE = 64 << 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="allocator settings are glibc's")
def test_what_is_freed_is_kept_within_and_given_back_after() -> None:
    """In a process of its own: in the holes that other tests left in the heap, pages may be missing already."""
    subprocess.run([sys.executable, __file__], check=True)


def faults_of_a_tensor(size: int) -> int:
    """Pages that the system had to make for a tensor of so many bytes, which is freed again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(size, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def check() -> None:
    pages = LARGE // 2 // resource.getpagesize()
    with memory.kept():
        faults_of_a_tensor(LARGE)
        faults, within = faults_of_a_tensor(LARGE // 2), resident()
    after = resident()
    assert faults < pages / 10, f"{faults} of {pages} pages were made anew"
    assert after < within - LARGE / 2, f"{within} bytes within, {after} after"


if __name__ == "__main__":
    check()
