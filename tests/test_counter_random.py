"""Random numbers by key: uniform, and unrelated between keys and streams."""

from __future__ import annotations

import numpy as np

from bothways.counter_random import generator, uniforms


def test_uniforms_are_uniform_and_unrelated() -> None:
    keys = np.arange(200_000)
    first, second = uniforms(keys, np.zeros(1, int), 0), uniforms(keys, np.zeros(1, int), 1)
    histogram, _ = np.histogram(first, 100, (0, 1))
    chi_squared = ((histogram - 2000) ** 2 / 2000).sum()
    assert 50 < chi_squared < 160  # 99 degrees of freedom: beyond one in ten thousand
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.01
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.01


def test_a_key_gives_the_same_generator_and_another_key_another() -> None:
    drawn = [generator(*key).permutation(1000).tolist() for key in ((1, 2, 3), (1, 2, 3), (1, 2, 4))]
    assert drawn[0] == drawn[1] != drawn[2]
