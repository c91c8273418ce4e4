"""Attention kernels against the eager reference and against the definition."""

from __future__ import annotations

import pytest
import torch

from bothways.model.attention import attend, attend_eager, attend_grouped, grouped

LENGTHS = torch.tensor([9, 9, 4, 1, 7, 9])


def inputs(dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(int(LENGTHS.sum()), 3, 8, dtype=dtype, generator=generator, requires_grad=True) for _ in range(3)
    ]


def cu_seqlens() -> torch.Tensor:
    return torch.tensor([0, *LENGTHS.tolist()]).cumsum(0).to(torch.int32)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_values_and_gradients_equal_the_reference(causal: bool, dtype: torch.dtype, tolerance: float) -> None:
    fast, slow = inputs(dtype), inputs(dtype)
    output = attend(*fast, cu_seqlens(), int(LENGTHS.max()), causal)
    expected, _ = attend_eager(*slow, LENGTHS, causal)
    assert (output - expected).abs().max() < tolerance
    weight = torch.randn(output.shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    (output * weight).sum().backward()
    (expected * weight).sum().backward()
    for ours, theirs in zip(fast, slow, strict=True):
        assert (ours.grad - theirs.grad).abs().max() < tolerance


def test_weights_are_distributions_and_causal_ones_look_back_only() -> None:
    _, weights = attend_eager(*inputs(torch.float64), LENGTHS, causal=True)
    for one in weights:
        assert torch.allclose(one.sum(-1), torch.ones(()).double())
        assert (one.triu(1) == 0).all()


def test_no_sequence_sees_another() -> None:
    q, k, v = (tensor.detach() for tensor in inputs(torch.float32))
    before = attend(q, k, v, cu_seqlens(), int(LENGTHS.max()))
    k2, v2 = k.clone(), v.clone()
    k2[9:18] += 5.0
    v2[9:18] -= 5.0
    after = attend(q, k2, v2, cu_seqlens(), int(LENGTHS.max()))
    assert torch.equal(before[:9], after[:9])
    assert torch.equal(before[18:], after[18:])
    assert not torch.equal(before[9:18], after[9:18])


@pytest.mark.parametrize("causal", [False, True])
def test_the_operator_keeps_torchs_rules_for_operators(causal: bool) -> None:
    torch.library.opcheck(grouped, (*inputs(torch.float32), LENGTHS, causal))


def test_the_operator_and_torchs_own_autograd_agree() -> None:
    ours, theirs = inputs(torch.float64), inputs(torch.float64)
    grouped(*ours, LENGTHS, False)[0].sin().sum().backward()
    attend_grouped(*theirs, LENGTHS).sin().sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.grad, other.grad)
