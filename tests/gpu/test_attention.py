"""Attention on a GPU against the reference, in values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bothways.model.attention import attend, choose_kernel
from bothways.model.attention_mask import BOTH_WAYS, CAUSAL, AttentionMask
from bothways.model.kernels.by_length import attend_by_length
from bothways.model.kernels.eager import attend_eager
from bothways.model.kernels.masked import attend_masked
from bothways.model.kernels.varlen import attend_varlen
from tests.helpers import batch_of_lengths

LENGTHS = torch.tensor([128, 128, 77, 512, 1, 33, 260])
HEADS = 4
BIAS = torch.randn(HEADS, 2 * int(LENGTHS.max()) - 1, generator=torch.Generator().manual_seed(3))
MASKS = {
    "both ways": BOTH_WAYS,
    "causal": CAUSAL,
    "window": AttentionMask(window=64),
    "causal window": AttentionMask(causal=True, window=64),
    "bias": AttentionMask(bias=BIAS),
}
# ‖difference‖ / ‖reference‖, of an exact reference on the same inputs: the rounding of sums, of bfloat16's 8 bits
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 1.5e-2}


def inputs(device: torch.device, dtype: torch.dtype, head_size: int = 64) -> list[Tensor]:
    """Queries, keys and values as views of a single product, as the layers have them."""
    generator = torch.Generator().manual_seed(0)
    made = torch.randn(int(LENGTHS.sum()), 3, HEADS, head_size, generator=generator).to(device, dtype)
    return list(made.unbind(1))


def gap(found: Tensor, exact: Tensor) -> float:
    return float((found.float() - exact).norm() / exact.norm())


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("head_size", [64, 32, 128, 20])
@pytest.mark.parametrize("name", MASKS)
def test_values_and_gradients_are_the_references(
    name: str, head_size: int, dtype: torch.dtype, device: torch.device
) -> None:
    mask = MASKS[name]
    if mask.bias is not None:
        mask = AttentionMask(bias=mask.bias.to(device, dtype))
    fast = [part.detach().clone().requires_grad_() for part in inputs(device, dtype, head_size)]
    exact = [part.detach().float().requires_grad_() for part in fast]
    output = attend(*fast, batch_of_lengths(LENGTHS).to(device), mask)
    expected, _ = attend_eager(*exact, LENGTHS, mask if mask.bias is None else AttentionMask(bias=mask.bias.float()))
    assert output.dtype == dtype
    assert gap(output.detach(), expected.detach()) < TOLERANCES[dtype]
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    gradients = torch.autograd.grad(output, fast, upstream)
    for found, reference in zip(gradients, torch.autograd.grad(expected, exact, upstream.float()), strict=True):
        assert gap(found, reference) < TOLERANCES[dtype]


def test_views_of_a_product_and_no_gradients(device: torch.device) -> None:
    for dtype, tolerance in TOLERANCES.items():
        parts = inputs(device, dtype)
        with torch.inference_mode():
            found = attend(*parts, batch_of_lengths(LENGTHS).to(device))
        expected, _ = attend_eager(*(part.float() for part in parts), LENGTHS)
        assert gap(found, expected) < tolerance


def test_which_kernel_is_chosen(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("of the kernels for CUDA")
    half, exact = (inputs(device, dtype)[0] for dtype in (torch.bfloat16, torch.float32))
    for mask in (BOTH_WAYS, CAUSAL, MASKS["window"]):
        for dropout in (0.0, 0.1):
            assert choose_kernel(half, mask, dropout) is attend_varlen
    assert choose_kernel(half, MASKS["bias"], 0.0) is attend_masked
    assert choose_kernel(exact, BOTH_WAYS, 0.1) is attend_by_length
    assert choose_kernel(inputs(device, torch.bfloat16, 20)[0], BOTH_WAYS, 0.0) is attend_by_length


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_no_sequence_sees_another(dtype: torch.dtype, device: torch.device) -> None:
    batch = batch_of_lengths(LENGTHS).to(device)
    q, k, v = inputs(device, dtype)
    before = attend(q, k, v, batch)
    k, v = k.clone(), v.clone()
    k[128:256] += 5
    v[128:256] -= 5
    after = attend(q, k, v, batch)
    assert torch.equal(before[:128], after[:128])
    assert torch.equal(before[256:], after[256:])
    assert not torch.equal(before[128:256], after[128:256])


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_dropout_follows_from_the_seed_and_keeps_the_mean(dtype: torch.dtype, device: torch.device) -> None:
    batch, rate = batch_of_lengths(LENGTHS).to(device), 0.25
    q, k, v = inputs(device, dtype)
    v = v.detach().clone().requires_grad_()

    def attended(seed: int, values: Tensor) -> Tensor:
        torch.manual_seed(seed)
        return attend(q, k, values, batch, BOTH_WAYS, rate)

    first, second = attended(1, v), attended(2, v)
    assert torch.equal(first, attended(1, v))
    assert not torch.equal(first, second)
    sums = attended(3, torch.ones_like(v)).float()  # of the weights that are kept, times 1 / (1 - rate)
    assert abs(float(sums.mean()) - 1) < 0.01
    assert float((sums == 0).float().mean()) < 0.01
    # out is linear in v, so with the same weights dropped ⟨out, g⟩ = ⟨v, ∂out/∂v g⟩
    upstream = torch.randn(first.shape, generator=torch.Generator().manual_seed(4)).to(device, dtype)
    (gradient,) = torch.autograd.grad(first, v, upstream)
    with torch.no_grad():
        pairs = [(first, upstream), (v, gradient)]
        left, right = (float((a.double() * b.double()).sum()) for a, b in pairs)
        size = float(first.double().norm() * upstream.double().norm())
    assert abs(left - right) < 2e-3 * size
