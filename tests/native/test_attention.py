"""Compiled attention against its definition: values and gradients, with the mask that it draws, at every width."""

from __future__ import annotations

import ctypes

import pytest
import torch
from torch import Tensor

from bothways.model import attention
from bothways.model.attention import attend
from bothways.model.attention_mask import BOTH_WAYS, CAUSAL, AttentionMask
from bothways.model.kernels import compiled as compiled_attention
from bothways.model.kernels.compiled import attend_compiled
from bothways.model.kernels.eager import attend_eager
from tests.helpers import batch_of_lengths

LENGTHS = torch.tensor([5, 130, 64, 33, 33, 12, 1, 1, 97])


@pytest.fixture(autouse=True)
def _through(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_attention, "library", lambda: library)


def inputs(size: int, lengths: Tensor = LENGTHS, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Queries, keys and values as one product gives them, side by side."""
    generator = torch.Generator().manual_seed(size)
    tokens = int(lengths.sum())
    together = torch.randn(tokens, 3, 2, size, generator=generator).to(dtype).requires_grad_()
    return [together, *together.unbind(1)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("size", [8, 32, 64, 60, 72, 5])
def test_values_and_gradients_are_those_of_the_definition(size: int, causal: bool) -> None:
    (ours, *parts), (theirs, *same) = inputs(size), inputs(size)
    found, expected = (
        attend_compiled(*parts, LENGTHS, AttentionMask(causal), 0.0),
        attend_eager(*same, LENGTHS, AttentionMask(causal))[0],
    )
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
    found.sin().sum().backward()
    expected.sin().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=5e-6, rtol=1e-5)


def test_inputs_and_gradients_may_lie_in_any_way() -> None:
    (_, *parts), expected = inputs(32), []
    lain = [parts[0], parts[1].detach().transpose(0, 2).contiguous().transpose(0, 2).requires_grad_(), parts[2]]
    weight = torch.randn(32)
    for tensors in (lain, [part.detach().clone().requires_grad_() for part in parts]):
        found = attend_compiled(*tensors, LENGTHS, CAUSAL, 0.0)
        expected.append((found, *torch.autograd.grad(found, tensors, weight.expand(found.shape))))
    for ours, theirs in zip(*expected, strict=True):
        assert torch.equal(ours, theirs)


def test_sequences_without_a_token() -> None:
    lengths = torch.tensor([0, 5, 0, 3])
    _, *parts = inputs(8, lengths)
    torch.testing.assert_close(
        attend_compiled(*parts, lengths, BOTH_WAYS, 0.0), attend_compiled(*parts, torch.tensor([5, 3]), BOTH_WAYS, 0.0)
    )
    assert attend_compiled(*(part[:0] for part in parts), lengths[:0], BOTH_WAYS, 0.1).shape == (0, 2, 8)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_not_hidden(value: float) -> None:
    _, q, k, v = (part.detach() for part in inputs(32))
    q[20], k[20, 0] = 1.0, value  # of the second sequence, one head
    found = attend_compiled(q, k, v, LENGTHS, BOTH_WAYS, 0.0)
    expected = attend_eager(q, k, v, LENGTHS)[0]
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5, equal_nan=True)
    assert found[5:135, 0].isnan().any()


def test_inputs_that_are_not_alike_are_refused() -> None:
    _, q, k, v = inputs(8)
    with pytest.raises(ValueError, match=r"float32 \[376, 2, 8\], torch.float32 \[375, 2, 8\]"):
        attend_compiled(q, k[1:], v, LENGTHS, BOTH_WAYS, 0.0)
    with pytest.raises(ValueError, match=r"torch.bfloat16 \[376, 2, 8\]"):
        attend_compiled(q, k, v.bfloat16(), LENGTHS, BOTH_WAYS, 0.0)
    with pytest.raises(ValueError, match="come to 375, and there are 376 tokens"):
        attend_compiled(q, k, v, LENGTHS - (LENGTHS == 5).long(), BOTH_WAYS, 0.0)


def masks(lengths: Tensor, causal: bool, dropout: float, seed: int) -> list[Tensor]:
    """Of each sequence `[A, L, L]`: the weights with dropout over those without, as values that are the identity tell.
    They hang on seed, sequence, head, query and key alone."""
    longest = int(lengths.max())
    tokens = int(lengths.sum())
    _, q, k, _ = inputs(longest, lengths)
    v = torch.cat([torch.eye(longest)[:n] for n in lengths.tolist()])[:, None].expand(tokens, 2, longest).contiguous()
    with torch.no_grad():
        torch.manual_seed(seed)
        dropped = attend_compiled(q.contiguous(), k.contiguous(), v, lengths, AttentionMask(causal), dropout)
        whole = attend_compiled(q.contiguous(), k.contiguous(), v, lengths, AttentionMask(causal), 0.0)
    ratio = torch.where(whole > 0, dropped / whole, 0.0)
    return [
        part[..., :n].transpose(0, 1) for part, n in zip(ratio.split(lengths.tolist()), lengths.tolist(), strict=True)
    ]


@pytest.mark.parametrize("causal", [False, True])
def test_dropped_weights_and_their_gradients_follow_the_mask(causal: bool) -> None:
    kept = masks(LENGTHS, causal, 0.4, seed=3)
    (ours, *parts), (theirs, *same) = inputs(32), inputs(32)
    torch.manual_seed(3)
    found = attend_compiled(*parts, LENGTHS, AttentionMask(causal), 0.4)
    expected = []
    for q, k, v, mask in zip(*(part.split(LENGTHS.tolist()) for part in same), kept, strict=True):
        scores = torch.einsum("iad,jad->aij", q, k) / 32**0.5
        if causal:
            scores = scores.masked_fill(torch.ones(scores.shape[1:]).triu(1).bool(), float("-inf"))
        expected.append(torch.einsum("aij,jad->iad", scores.softmax(-1) * mask, v))
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-5, rtol=1e-5)
    found.sin().sum().backward()
    torch.cat(expected).sin().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=2e-5, rtol=1e-4)


def test_the_mask_drops_its_share_everywhere_alike() -> None:
    lengths = torch.tensor([250, 250])
    kept = torch.stack(masks(lengths, False, 0.3, seed=1))  # [sequence, head, query, key]
    values = kept.unique()
    assert all(value == 0 or value == pytest.approx(1 / 0.7, rel=1e-3) for value in values.tolist())
    dropped = (kept == 0).double()
    number = dropped[0].numel()
    assert abs(float(dropped.mean()) - 0.3) < 4 * (0.21 / dropped.numel()) ** 0.5
    for dims in ((0, 1, 2), (0, 1, 3)):  # by key, by query
        assert (dropped.mean(dims) - 0.3).abs().max() < 5 * (0.21 / 1000) ** 0.5
    pairs = {
        "keys beside each other": (dropped[..., 1:], dropped[..., :-1]),
        "queries beside each other": (dropped[:, :, 1:], dropped[:, :, :-1]),
        "heads": (dropped[:, 0], dropped[:, 1]),
        "sequences": (dropped[0], dropped[1]),
        "the same mirrored": (dropped, dropped.mT),
    }
    for name, (a, b) in pairs.items():
        assert abs(float((a * b).mean()) - 0.09) < 5 * (0.09 * 0.91 / number) ** 0.5, name
    other = torch.stack(masks(lengths, False, 0.3, seed=2)) == 0
    assert abs(float((dropped * other).mean()) - 0.09) < 0.003


def test_bfloat16_is_float32_rounded() -> None:
    (ours, *parts), (theirs, *same) = inputs(32, dtype=torch.bfloat16), inputs(32, dtype=torch.bfloat16)
    results = []
    for tensors in (parts, [part.float() for part in same]):
        torch.manual_seed(5)
        results.append(attend_compiled(*tensors, LENGTHS, BOTH_WAYS, 0.1))
    assert torch.equal(results[0], results[1].bfloat16())
    weight = torch.randn(results[1].shape).bfloat16()
    results[0].backward(weight)
    results[1].backward(weight.float())
    assert ours.grad is not None
    assert torch.equal(ours.grad, theirs.grad)


def test_the_same_bits_on_any_number_of_threads_and_beside_any_company() -> None:
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            torch.manual_seed(7)
            together, *parts = inputs(32)
            attended = attend_compiled(*parts, LENGTHS, BOTH_WAYS, 0.2)
            attended.sin().sum().backward()
            found.append((attended, together.grad))
    finally:
        torch.set_num_threads(threads)
    for attended, grad in found[1:]:
        assert torch.equal(attended, found[0][0])
        assert torch.equal(grad, found[0][1])
    _, *parts = inputs(32)
    alone = attend_compiled(*(part[5:135] for part in parts), LENGTHS[1:2], BOTH_WAYS, 0.0)
    assert torch.equal(alone, attend_compiled(*parts, LENGTHS, BOTH_WAYS, 0.0)[5:135])


def test_training_goes_through_it_and_gets_on_without(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(attention, "has_training_kernels", lambda tensor: True)
    monkeypatch.setattr(attention, "attend_compiled", lambda *args: calls.append(1) or attend_compiled(*args))
    _, *parts = inputs(32)
    batch = batch_of_lengths(LENGTHS)
    found = attend(*parts, batch)
    assert calls
    with torch.no_grad():
        attend(*parts, batch, dropout=0.1)
    assert len(calls) == 2, "what is dropped does not hang on whether there will be a gradient"
    monkeypatch.setattr(attention, "has_training_kernels", lambda tensor: False)
    torch.testing.assert_close(found, attend(*parts, batch), atol=1e-5, rtol=1e-5)
    assert len(calls) == 2
