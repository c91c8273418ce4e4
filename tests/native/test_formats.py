"""Products in bfloat16 and int8, at every width of vectors, against the same products in float64."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

SIZES = [(1, 1, 1), (5, 7, 3), (13, 64, 65), (30, 130, 100)]  # rows, depth, columns

Matrix = NDArray[np.float64]


def product(probe: ctypes.CDLL, precision: str, x: Matrix, weight: Matrix) -> NDArray[np.float32]:
    out = np.full((len(x), len(weight)), 7, dtype=np.float32)
    a, b = x.astype(np.float32), weight.astype(np.float32)
    sizes = len(x), x.shape[1], len(weight)
    getattr(probe, f"probe_multiply_{precision}")(a.ctypes.data, b.ctypes.data, *sizes, out.ctypes.data)
    return out


def sides(size: tuple[int, int, int]) -> tuple[Matrix, Matrix]:
    rows, depth, columns = size
    generator = np.random.default_rng(depth)
    x, weight = generator.normal(size=(rows, depth)), generator.normal(size=(columns, depth))
    x[:, depth // 2] *= 20  # one outlier, as the hidden states of trained models have
    return x.astype(np.float32).astype(np.float64), weight.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("size", SIZES)
def test_bfloat16_multiplies_the_rounded_numbers(size: tuple[int, int, int], probe: ctypes.CDLL) -> None:
    x, weight = sides(size)
    rounded = [torch.tensor(side).bfloat16().double().numpy() for side in (x, weight)]
    expected = rounded[0] @ rounded[1].T
    np.testing.assert_allclose(product(probe, "bfloat16", x, weight), expected, atol=2e-4, rtol=1e-5)


def levels(rows: Matrix, count: int) -> tuple[Matrix, Matrix]:
    """The levels of numbers, whose largest of a row has `count`, and the size of a row's level."""
    largest = np.abs(rows).max(axis=1, keepdims=True)
    return np.round(rows.astype(np.float32) * np.float32(count / largest)).astype(np.float64), largest / count


@pytest.mark.parametrize("size", SIZES)
def test_int8_multiplies_the_levels_of_rows_and_columns(size: tuple[int, int, int], probe: ctypes.CDLL) -> None:
    x, weight = sides(size)
    a, of_row = levels(x, 127)
    b, of_column = levels(weight, probe.probe_column_levels())
    found = product(probe, "int8", x, weight)
    np.testing.assert_allclose(found, (a @ b.T) * of_row * of_column.T, rtol=2e-6, atol=1e-5)


def test_the_largest_sums_do_not_overflow(probe: ctypes.CDLL) -> None:
    """Two neighbours at their largest are what pairs in 16 bits could not hold in 8 bits each."""
    x, weight = np.full((2, 512), 3.0), np.full((4, 512), 0.5)
    x[1], weight[1], weight[3, ::2] = -3.0, -0.5, -0.5
    np.testing.assert_allclose(product(probe, "int8", x, weight), x @ weight.T, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_not_hidden(precision: str, value: float, probe: ctypes.CDLL) -> None:
    for column in (0, 36):  # in a whole vector and behind the last one
        x, weight = sides((3, 37, 5))
        x[1, column], weight[2, column] = value, value
        found = product(probe, precision, x, weight)
        assert not np.isfinite(found[1]).any()
        assert not np.isfinite(found[:, 2]).any()
        assert np.isfinite(np.delete(np.delete(found, 1, 0), 2, 1)).all()


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_row_does_not_depend_on_those_beside_it(precision: str, probe: ctypes.CDLL) -> None:
    x, weight = sides((30, 130, 100))
    together = product(probe, precision, x, weight)
    for row in (0, 11, 29):
        assert np.array_equal(product(probe, precision, x[row : row + 1], weight)[0], together[row])


def test_nought_stays_nought(probe: ctypes.CDLL) -> None:
    assert not product(probe, "int8", np.zeros((2, 9)), np.ones((3, 9))).any()
    assert not product(probe, "int8", np.ones((2, 9)), np.zeros((3, 9))).any()
