"""Attention kernels against the eager reference and against the definition."""

from __future__ import annotations

import pytest
import torch

from bothways.model import attention
from bothways.model.attention import attend, choose_kernel
from bothways.model.attention_mask import BOTH_WAYS, CAUSAL, AttentionMask
from bothways.model.dropout import Dropout, keep_mask
from bothways.model.kernels.by_length import attend_by_length, attend_flash, flash_by_length
from bothways.model.kernels.dropped import attend_dropped
from bothways.model.kernels.eager import attend_eager
from tests.helpers import batch_of_lengths

LENGTHS = torch.tensor([9, 9, 4, 1, 7, 9])
BATCH = batch_of_lengths(LENGTHS)


def inputs(dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(int(LENGTHS.sum()), 3, 8, dtype=dtype, generator=generator, requires_grad=True) for _ in range(3)
    ]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_values_and_gradients_equal_the_reference(causal: bool, dtype: torch.dtype, tolerance: float) -> None:
    fast, slow = inputs(dtype), inputs(dtype)
    output = attend(*fast, BATCH, AttentionMask(causal))
    expected, _ = attend_eager(*slow, LENGTHS, AttentionMask(causal))
    assert (output - expected).abs().max() < tolerance
    weight = torch.randn(output.shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    (output * weight).sum().backward()
    (expected * weight).sum().backward()
    for ours, theirs in zip(fast, slow, strict=True):
        assert (ours.grad - theirs.grad).abs().max() < tolerance


def test_weights_are_distributions_and_causal_ones_look_back_only() -> None:
    _, weights = attend_eager(*inputs(torch.float64), LENGTHS, CAUSAL)
    for sequence in weights:
        assert torch.allclose(sequence.sum(-1), torch.ones(()).double())
        assert (sequence.triu(1) == 0).all()


def test_no_sequence_sees_another() -> None:
    q, k, v = (tensor.detach() for tensor in inputs(torch.float32))
    before = attend(q, k, v, BATCH)
    k2, v2 = k.clone(), v.clone()
    k2[9:18] += 5.0
    v2[9:18] -= 5.0
    after = attend(q, k2, v2, BATCH)
    assert torch.equal(before[:9], after[:9])
    assert torch.equal(before[18:], after[18:])
    assert not torch.equal(before[9:18], after[9:18])


@pytest.mark.parametrize("causal", [False, True])
def test_the_operator_keeps_torchs_rules_for_operators(causal: bool) -> None:
    torch.library.opcheck(flash_by_length, (*inputs(torch.float32), LENGTHS, causal))


def test_the_operator_and_torchs_own_autograd_agree() -> None:
    ours, theirs = inputs(torch.float64), inputs(torch.float64)
    attend_flash(*ours, BATCH, BOTH_WAYS, 0.0).sin().sum().backward()
    attend_by_length(*theirs, BATCH, BOTH_WAYS, 0.0).sin().sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine.grad, other.grad)


def test_the_choice_of_a_kernel_on_a_cpu_is_that_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    q, _, _ = inputs(torch.float32)
    monkeypatch.setattr(attention, "has_training_kernels", lambda tensor: True)
    compiled = choose_kernel(q, BOTH_WAYS, 0.0)
    assert choose_kernel(q, BOTH_WAYS, 0.1) is compiled
    with torch.no_grad():
        assert choose_kernel(q, BOTH_WAYS, 0.0) is attend_flash
        assert choose_kernel(q, BOTH_WAYS, 0.1) is compiled, (
            "what is dropped does not hang on whether there will be a gradient"
        )
    monkeypatch.setattr(attention, "has_training_kernels", lambda tensor: False)
    assert choose_kernel(q, BOTH_WAYS, 0.0) is attend_flash
    assert choose_kernel(q, BOTH_WAYS, 0.1) is attend_dropped


@pytest.mark.parametrize("causal", [False, True])
def test_dropped_weights_are_those_of_the_mask(causal: bool) -> None:
    """With dropout: values and gradients of the definition, given the mask that the same seed draws."""
    fast, slow = inputs(torch.float64), inputs(torch.float64)
    torch.manual_seed(3)
    output = attend(*fast, BATCH, AttentionMask(causal), dropout=0.4)
    torch.manual_seed(3)
    expected = []
    for (length, run), *parts in zip(
        [(9, 2), (4, 1), (1, 1), (7, 1), (9, 1)], *(part.split([18, 4, 1, 7, 9]) for part in slow), strict=True
    ):
        q, k, v = (part.unflatten(0, (run, length)).transpose(1, 2) for part in parts)
        scores = q @ k.mT / 8**0.5
        if causal:
            scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf"))
        weights = scores.softmax(-1)
        weights = weights * keep_mask(weights, 0.4) / 0.6
        expected.append((weights @ v).transpose(1, 2).flatten(0, 1))
    reference = torch.cat(expected)
    assert (output - reference).abs().max() < 1e-12
    output.sin().sum().backward()
    reference.sin().sum().backward()
    for ours, theirs in zip(fast, slow, strict=True):
        assert (ours.grad - theirs.grad).abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # compiled, where that is; torch's operators
def test_dropout_drops_its_share_and_keeps_the_mean(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(1001, 777, dtype=dtype)
    for probability in (0.1, 0.5, 0.9):
        dropout = Dropout(probability)
        y = dropout(x)
        spread = (probability * (1 - probability) / x.numel()) ** 0.5
        assert abs(float((y == 0).double().mean()) - probability) < 4 * spread + 1e-5
        assert y.max().item() == pytest.approx(1 / (1 - probability))
        torch.manual_seed(1)
        first = dropout(x)
        torch.manual_seed(1)
        assert torch.equal(first, dropout(x))
        assert not torch.equal(first, dropout(x))
        assert torch.equal(dropout.eval()(x), x)
    rows = torch.nn.functional.pad(Dropout(0.5)(x) == 0, (0, 1)).double()  # neighbours fall independently
    assert abs(float((rows[:, :-2] * rows[:, 1:-1]).mean()) - 0.25) < 0.002
