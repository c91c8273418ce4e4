"""Compiled dropout at every width: what falls, and that the gradient falls with it."""

from __future__ import annotations

import ctypes

import pytest
import torch

from bothways.model import dropout
from bothways.model.dropout import Dropout


@pytest.fixture(autouse=True)
def _through(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropout, "library", lambda: library)


@pytest.mark.parametrize("shape", [(1,), (7, 3), (33, 384), (4097,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_element_is_nothing_or_itself_over_the_share(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.rand(shape).add_(0.5).to(dtype).requires_grad_()
    torch.manual_seed(4)
    y = Dropout(0.25)(x)
    stays = y != 0
    torch.testing.assert_close(y, torch.where(stays, x / 0.75, 0.0).to(dtype))
    weight = torch.rand(shape).to(dtype)
    y.backward(weight)
    torch.testing.assert_close(x.grad, torch.where(stays, weight / 0.75, 0.0).to(dtype))


def test_its_gradient_has_one_too() -> None:
    x = torch.rand(50).add_(0.5).requires_grad_()
    y = Dropout(0.5)(x)
    (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    (curve,) = torch.autograd.grad(slope.sum(), x)
    torch.testing.assert_close(curve, torch.where(y != 0, 8.0, 0.0))  # of (x / 0.5)² where it stays


def test_the_share_of_each_row_and_column_and_no_two_draws_alike() -> None:
    torch.manual_seed(0)
    x = torch.ones(500, 400)
    first, second = ((Dropout(0.3)(x) == 0).double() for _ in range(2))
    for dim in (0, 1):
        number = x.shape[dim]
        assert (first.mean(dim) - 0.3).abs().max() < 5 * (0.21 / number) ** 0.5
    spread = (0.09 * 0.91 / x.numel()) ** 0.5
    for a, b in ((first, second), (first[1:], first[:-1]), (first[:, 1:], first[:, :-1])):
        assert abs(float((a * b).mean()) - 0.09) < 5 * spread


def test_the_same_bits_on_any_number_of_threads() -> None:
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            torch.manual_seed(9)
            found.append(Dropout(0.1)(torch.ones(100, 999)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)
