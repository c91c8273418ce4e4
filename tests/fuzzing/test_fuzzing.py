"""Damaged tables, rows, corpora and model directories are read, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzzing.run import faults

pytestmark = pytest.mark.slow

INPUTS = 2000


@pytest.mark.parametrize("first", range(0, INPUTS, 500))
def test_what_is_damaged_is_read_or_refused_in_one_line(first: int, tmp_path: Path) -> None:
    assert list(faults(tmp_path, range(first, first + 500))) == []
