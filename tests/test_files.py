"""Limits of the system that a large store would meet."""

from __future__ import annotations

import pytest

from bothways.files import SPARE_FILES, allow_open_files

resource = pytest.importorskip("resource", reason="only Unix has limits of open files")


def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = max(512, SPARE_FILES)
    if before[1] != resource.RLIM_INFINITY and before[1] < 2 * lowest + SPARE_FILES:
        pytest.skip("the hard limit is low already")
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
        allow_open_files(10)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == lowest  # enough
        allow_open_files(2 * lowest)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (2 * lowest + SPARE_FILES, before[1])
        if before[1] != resource.RLIM_INFINITY:
            allow_open_files(10 * before[1])
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
