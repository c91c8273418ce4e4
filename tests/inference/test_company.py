"""Where the compiled layers run a model, a text's answer has the same bits alone as in any company."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bothways.inference.compiled import CompiledModel
from bothways.inference.steady import MIN_STEADY_ROWS, SteadyLinear
from tests.inference.test_one_and_many import METHODS, flat, model_of

TEXTS = [
    " ".join(["the", "red", "dog", "runs", "in", "a", "big", "house", "and", "eats"][: 1 + number % 10])
    for number in range(40)
]


@pytest.mark.parametrize("name", ["classify", "tag", "answer", "choose", "embed"])
def test_the_same_bits_alone_and_in_company(name: str) -> None:
    kind, ask = METHODS[name]
    model = model_of(kind)
    if not isinstance(model.for_prediction, CompiledModel):
        pytest.skip("the library is not compiled on this machine")
    for number in (2, 3, 5, 17, 40):
        for alone, beside in zip(
            [ask(model, text) for text in TEXTS[:number]], ask(model, TEXTS[:number]), strict=True
        ):
            assert bits(alone) == bits(beside)


def bits(result: Any) -> list[Any]:
    if isinstance(result, np.ndarray):
        return list(result.tolist())
    results = result if isinstance(result, list) else [result]
    return list(flat([entry.to_dict() for entry in results]))


def test_a_row_of_a_steady_layer_does_not_depend_on_their_number() -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(384, 77)
    steady, x = SteadyLinear(linear), torch.randn(1030, 384)
    with torch.inference_mode():
        whole = steady(x)
        assert torch.allclose(whole, linear(x), atol=1e-6)
        for number in (1, 2, MIN_STEADY_ROWS - 1, MIN_STEADY_ROWS, 100):
            assert torch.equal(steady(x[:number]), whole[:number])
