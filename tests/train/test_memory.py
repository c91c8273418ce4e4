"""Memory between steps: what was freed is had again without asking the system for it."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from bothways.train import memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="allocator settings are glibc's")
LARGE = 64 << 20


def faults_of_a_tensor(size: int) -> int:
    """Pages that the system had to make for a tensor of so many bytes, which is freed again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(size, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_what_is_freed_is_kept_within_and_given_back_after() -> None:
    pages = LARGE // 2 // resource.getpagesize()
    with memory.kept():
        faults_of_a_tensor(LARGE)
        assert faults_of_a_tensor(LARGE // 2) < pages / 10
    assert faults_of_a_tensor(LARGE // 2) > pages / 2
