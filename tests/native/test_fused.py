"""What stands between the products of a layer, compiled, against torch in float64, at every width."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.model import dropout as dropout_module
from bothways.model import lm_head, sublayer
from bothways.model.dropout import Dropout
from bothways.model.kernels import cross_entropy, fused
from bothways.model.kernels.cross_entropy import compiled_cross_entropy
from bothways.model.kernels.fused import bias_gelu, residual_norm
from bothways.model.lm_head import LazyLogits
from bothways.model.sublayer import activate, add_and_norm

ROWS, WIDTH = 70, 48  # two blocks of rows and a part; no whole number of the widest registers' pairs
HALF = 2**-8  # what rounding to bfloat16 takes, relative


@pytest.fixture(autouse=True)
def _through(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (fused, cross_entropy, dropout_module):
        monkeypatch.setattr(module, "library", lambda: library)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape))).to(dtype)


def norm_of(width: int = WIDTH) -> nn.LayerNorm:
    norm = nn.LayerNorm(width, eps=1e-12)
    with torch.no_grad():
        norm.weight.copy_(random(width, seed=7))
        norm.bias.copy_(random(width, seed=8))
    return norm


def values_and_gradients(function: Callable[..., Tensor], inputs: Sequence[Tensor], weight: Tensor) -> list[Tensor]:
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, weight.to(out.dtype))]


def assert_rounded(found: Sequence[Tensor], exact: Sequence[Tensor], error: float = 2e-6) -> None:
    """Within rounding of the largest number of each; of bfloat16 each number within its own, too."""
    for ours, theirs in zip(found, exact, strict=True):
        relative = HALF if ours.dtype == torch.bfloat16 else 0.0
        torch.testing.assert_close(ours.double(), theirs, atol=error * float(theirs.abs().max()), rtol=relative)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gelu_of_a_bias(dtype: torch.dtype) -> None:
    inputs, weight = [2 * random(ROWS, WIDTH, dtype=dtype), random(WIDTH)], random(ROWS, WIDTH, seed=1, dtype=dtype)
    found = values_and_gradients(bias_gelu, inputs, weight)
    assert [tensor.dtype for tensor in found] == [dtype, dtype, torch.float32]
    exact = values_and_gradients(lambda x, bias: F.gelu(x + bias), [x.double() for x in inputs], weight)
    assert_rounded(found, exact)


@pytest.mark.parametrize(
    ("of_x", "of_residual"),
    [(torch.float32, torch.float32), (torch.bfloat16, torch.float32), (torch.bfloat16, torch.bfloat16)],
)
@pytest.mark.parametrize("probability", [0.0, 0.25])
def test_a_residual_and_its_norm(of_x: torch.dtype, of_residual: torch.dtype, probability: float) -> None:
    norm = norm_of()
    x, bias, residual = random(ROWS, WIDTH, dtype=of_x), random(WIDTH), random(ROWS, WIDTH, seed=2, dtype=of_residual)
    weight = random(ROWS, WIDTH, seed=3).bfloat16()
    torch.manual_seed(5)
    scales = Dropout(probability)(torch.ones(ROWS, WIDTH)).double()  # of the same draw
    assert float((scales == 0).double().mean()) == pytest.approx(probability, abs=0.03)

    def ours(x: Tensor, bias: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        torch.manual_seed(5)
        trained = SimpleNamespace(weight=gamma, bias=beta, eps=norm.eps)
        return residual_norm(x, bias, residual, cast("nn.LayerNorm", trained), probability)

    def theirs(x: Tensor, bias: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return F.layer_norm(residual + (x + bias) * scales, (WIDTH,), gamma, beta, norm.eps)

    inputs = [x, bias, residual, norm.weight, norm.bias]
    exact = values_and_gradients(theirs, [tensor.double() for tensor in inputs], weight.double())
    found = values_and_gradients(ours, inputs, weight)
    assert [tensor.dtype for tensor in found] == [of_residual, of_x, torch.float32, of_residual, *[torch.float32] * 2]
    assert_rounded(found, exact)


@pytest.mark.parametrize("columns", [1, 16, 75, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cross_entropy(columns: int, dtype: torch.dtype) -> None:
    scores, bias = 3 * random(ROWS, columns, dtype=dtype), random(columns)
    labels = torch.randint(columns, (ROWS,), generator=torch.Generator().manual_seed(1))
    exact = (scores.double() + bias.double()).requires_grad_()
    loss = F.cross_entropy(exact, labels, reduction="sum")
    (slopes,) = torch.autograd.grad(loss, exact)
    kept = scores.clone()
    found, right = compiled_cross_entropy(kept, bias, labels, None)
    assert torch.equal(kept, scores)
    assert right == int((exact.argmax(-1) == labels).sum())
    torch.testing.assert_close(found.double(), loss.detach(), atol=1e-4, rtol=1e-6)
    before = random(columns, seed=4)
    grad_bias = before.clone()
    again, _ = compiled_cross_entropy(kept, bias, labels, grad_bias)
    assert torch.equal(again, found)
    torch.testing.assert_close(kept.double(), slopes, atol=1e-6, rtol=HALF if dtype == torch.bfloat16 else 0)
    torch.testing.assert_close(grad_bias.double(), before + slopes.sum(0), atol=2e-5, rtol=0)


def test_of_equal_scores_the_first_is_the_guess_and_no_number_is_not_hidden() -> None:
    scores = torch.zeros(3, 40)
    scores[2, 20] = float("nan")
    loss, right = compiled_cross_entropy(scores, torch.zeros(40), torch.tensor([0, 7, 3]), None)
    assert right == 1
    assert loss.isnan()


def test_the_loss_over_the_vocabulary_is_that_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, labels = nn.Linear(WIDTH, 75), torch.randint(75, (600,), generator=torch.Generator().manual_seed(2))
    found = []
    for compiled in (True, False):
        monkeypatch.setattr(lm_head, "has_training_kernels", lambda tensor, answer=compiled: answer)
        hidden = random(600, WIDTH).requires_grad_()
        loss, right = LazyLogits(hidden, decoder, torch.float32).cross_entropy(labels)
        found.append([loss, right, *torch.autograd.grad(2 * loss, [hidden, decoder.weight, decoder.bias])])
    torch.testing.assert_close(*found, atol=2e-5, rtol=1e-5)


def test_the_same_bits_on_any_number_of_threads() -> None:
    rows, threads, found = 333, torch.get_num_threads(), []
    labels = torch.arange(rows) % WIDTH
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            torch.manual_seed(7)
            x, residual, bias = (
                random(rows, WIDTH).requires_grad_(),
                random(rows, WIDTH),
                random(WIDTH).requires_grad_(),
            )
            norm = norm_of()
            out = residual_norm(bias_gelu(x, bias), bias, residual, norm, 0.1)
            grads = torch.autograd.grad(out.sin().sum(), [x, bias, norm.weight, norm.bias])
            scores, grad_bias = out.detach().clone(), torch.zeros(WIDTH)
            loss, _ = compiled_cross_entropy(scores, bias.detach(), labels, grad_bias)
            found.append([out, *grads, scores, grad_bias, loss])
    finally:
        torch.set_num_threads(threads)
    for others in found[1:]:
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found[0], others, strict=True))


def test_a_row_does_not_depend_on_the_others() -> None:
    x, bias, norm = random(ROWS, WIDTH), random(WIDTH), norm_of()
    whole = residual_norm(bias_gelu(x, bias), bias, x, norm)
    assert torch.equal(residual_norm(bias_gelu(x[40:41], bias), bias, x[40:41], norm), whole[40:41])
    assert residual_norm(bias_gelu(x[:0], bias), bias, x[:0], norm).shape == (0, WIDTH)


def test_a_layer_goes_through_them_and_gets_on_without(monkeypatch: pytest.MonkeyPatch) -> None:
    inner, outer, norm, dropout = nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH), norm_of(), Dropout(0.3)
    calls, found = [], []

    def layer(hidden: Tensor) -> Tensor:
        torch.manual_seed(3)
        return add_and_norm(outer, activate(inner, F.gelu, hidden), hidden, dropout, norm)

    for name in ("bias_gelu", "residual_norm"):
        function = getattr(sublayer, name)
        monkeypatch.setattr(sublayer, name, lambda *args, call=function: calls.append(1) or call(*args))
    monkeypatch.setattr(dropout_module, "has_training_kernels", lambda tensor: True)
    for compiled in (True, False):
        monkeypatch.setattr(sublayer, "has_training_kernels", lambda tensor, answer=compiled: answer)
        parameters = [*inner.parameters(), *outer.parameters(), *norm.parameters()]
        found.append(values_and_gradients(layer, [random(ROWS, WIDTH)], random(ROWS, WIDTH, seed=1)))
        loss = layer(random(ROWS, WIDTH)).square().sum()
        found[-1] += torch.autograd.grad(loss, parameters)
    assert len(calls) == 4
    torch.testing.assert_close(*found, atol=2e-5, rtol=1e-4)
    monkeypatch.setattr(sublayer, "has_training_kernels", lambda tensor: True)
    with torch.no_grad():
        torch.testing.assert_close(layer(random(ROWS, WIDTH)), found[0][0])
    activate(nn.Linear(WIDTH, 60), F.gelu, random(ROWS, WIDTH))  # of another width
    activate(inner, torch.tanh, random(ROWS, WIDTH))
    assert len(calls) == 4


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rows of 40 numbers, to be a multiple of 16"):
        bias_gelu(random(3, 40), random(40))
    with pytest.raises(ValueError, match=r"torch.float64 \[48\]"):
        residual_norm(random(3, 48), random(48), random(3, 48), norm_of().double())
    with pytest.raises(ValueError, match=r"float16 \[3, 48\], to be float32 or bfloat16"):
        bias_gelu(random(3, 48, dtype=torch.float16), random(48))
    with pytest.raises(ValueError, match=r"beside a residual that is torch.float32 \[2, 48\]"):
        residual_norm(random(3, 48), random(48), random(2, 48), norm_of())
    with pytest.raises(ValueError, match=r"beside a residual that is torch.bfloat16"):
        residual_norm(random(3, 48), random(48), random(3, 48, dtype=torch.bfloat16), norm_of())
    for label in (-1, 40):
        with pytest.raises(IndexError, match=rf"labels of .*{label}.*, of 40 columns"):
            compiled_cross_entropy(random(2, 40), random(40), torch.tensor([0, label]), None)


def test_modules_with_hooks_and_products_in_float16_go_the_plain_way() -> None:
    inner, outer, norm, x = nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH), norm_of(), random(ROWS, WIDTH)
    with torch.autocast("cpu", torch.float16):
        hidden = activate(inner, F.gelu, x)
        out = add_and_norm(outer, hidden, x, Dropout(0.0), norm)
    assert hidden.dtype == torch.float16
    torch.testing.assert_close(out, norm(x + outer(F.gelu(inner(x)))), atol=0.05, rtol=0.05)
    called: list[nn.Module] = []
    for module in (inner, outer, norm):
        module.register_forward_pre_hook(lambda module, read: called.append(module))
    add_and_norm(outer, activate(inner, F.gelu, x), x, Dropout(0.0), norm)
    assert called == [inner, outer, norm]
