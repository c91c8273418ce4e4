"""The functions of `functions.h` within the error bounds that stand there, and the random numbers of `random.h`."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch

from bothways.counter_random import mix


def evaluate(function: ctypes._CFuncPtr, x: np.ndarray) -> np.ndarray:
    """A function of a vector, over an array of a multiple of 16 float32s."""
    assert x.dtype == np.float32
    assert len(x) % 16 == 0
    out = np.empty_like(x)
    function(x.ctypes.data, out.ctypes.data, len(x))
    return out


def evenly(low: float, high: float, count: int = 1 << 20) -> np.ndarray:
    return np.linspace(low, high, count, dtype=np.float32)


def test_the_exponential_is_within_its_error_bound(probe: ctypes.CDLL) -> None:
    for x in (evenly(-87, 88), evenly(-1, 1), evenly(-1e-3, 1e-3)):
        exact = np.exp(x.astype(np.float64))
        assert (np.abs(evaluate(probe.probe_exponential, x) / exact - 1)).max() <= 1e-7
    ends = np.array([-np.inf, -1e30, -88, np.nan] * 4, dtype=np.float32)
    found = evaluate(probe.probe_exponential, ends)
    np.testing.assert_allclose(found[:3], np.exp(-87.0), rtol=2e-7)
    assert np.isnan(found[3])


def test_gelu_is_within_its_error_bound(probe: ctypes.CDLL) -> None:
    for x in (evenly(-20, 20), evenly(-1, 1)):
        exact = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
        error = np.abs(evaluate(probe.probe_gelu, x) - exact)
        assert (error / np.maximum(1, np.abs(x))).max() <= 2.5e-7
    assert np.isnan(evaluate(probe.probe_gelu, np.full(16, np.nan, dtype=np.float32))).all()


def test_the_slope_of_gelu_is_within_its_error_bound(probe: ctypes.CDLL) -> None:
    for x in (evenly(-20, 20), evenly(-1, 1)):
        wide = torch.from_numpy(x).double().requires_grad_()
        (exact,) = torch.autograd.grad(torch.nn.functional.gelu(wide).sum(), wide)
        assert np.abs(evaluate(probe.probe_gelu_slope, x) - exact.numpy()).max() <= 4e-7
    assert np.isnan(evaluate(probe.probe_gelu_slope, np.full(16, np.nan, dtype=np.float32))).all()


@pytest.mark.parametrize("scale", [1.0, 0.125])
def test_softmax_is_within_its_error_bound(probe: ctypes.CDLL, scale: float) -> None:
    generator = np.random.default_rng(3)
    for length in (1, 2, 15, 16, 17, 31, 100, 512):
        padded = -(-length // 32) * 32
        for spread in (0.1, 3.0, 30.0):
            row = np.zeros(padded, dtype=np.float32)
            row[:length] = spread * generator.standard_normal(length)
            row[length:] = 1e9  # what stands behind must not count
            below = scale * (row[:length].max() - row[:length].astype(np.float64))
            exact = np.exp(-below) / np.exp(-below).sum()
            probe.probe_softmax(row.ctypes.data, length, padded, scale)
            error = np.abs(row[:length] / exact - 1)
            assert (error <= 4e-7 + 1.2e-7 * below)[exact > 1e-30].all()
            assert (row[length:] == 0).all()
    row = np.zeros(32, dtype=np.float32)
    row[7] = np.nan
    probe.probe_softmax(row.ctypes.data, 9, 32, scale)
    assert np.isnan(row[:9]).all()


def test_layer_norm_is_within_its_error_bound(probe: ctypes.CDLL) -> None:
    generator = np.random.default_rng(4)
    for width in (1, 7, 32, 60, 384, 768, 1024):
        row, weight, bias = generator.standard_normal((3, width)).astype(np.float32)
        wide = torch.from_numpy(row).double()
        exact = torch.nn.functional.layer_norm(
            wide, (width,), torch.from_numpy(weight).double(), torch.from_numpy(bias).double(), 1e-12
        ).numpy()
        probe.probe_layer_norm(row.ctypes.data, width, weight.ctypes.data, bias.ctypes.data, 1e-12)
        assert np.abs(row - exact).max() <= 2e-6


def test_splitmix64_is_the_mix_of_counter_random(probe: ctypes.CDLL) -> None:
    words = np.random.default_rng(5).integers(0, 1 << 64, 100, dtype=np.uint64)
    words[:3] = (0, 1, (1 << 64) - 1)
    assert [probe.probe_splitmix64(int(word)) for word in words] == mix(words).tolist()
    for tensor, seed in zip(words[:-1].tolist(), words[1:].tolist(), strict=True):
        key = int(mix(np.uint64(tensor), np.uint64(seed)))
        assert probe.probe_row_key(seed, tensor, 0) == int(mix(np.uint64(key)))
