"""Where the compiled layers run a model, a text's answer has the same bits alone as in any company."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import bothways as bw
from bothways.inference.compiled import CompiledModel
from bothways.inference.steady import SteadyLinear
from bothways.native.loading import library
from tests.inference.test_one_and_many import METHODS, flat, model_of

TEXTS = [
    " ".join(["the", "red", "dog", "runs", "in", "a", "big", "house", "and", "eats"][: 1 + number % 10])
    for number in range(24)
]


ASKED: dict[str, tuple[str, Callable[[bw.Predictor, Any], Any]]] = {
    **{name: METHODS[name] for name in ("classify", "tag", "answer", "choose", "embed")},
    "fill": ("pretrained", lambda model, texts: model.fill(with_mask(texts))),
    "next_sentence": ("pretrained", lambda model, texts: model.next_sentence(texts, "a cat sleeps")),
    "score": ("causal", lambda model, texts: model.score(texts, "dog")),
    "score, masked": ("pretrained", lambda model, texts: model.score(texts, "dog")),
    "suggest": ("causal", lambda model, texts: model.suggest(texts)),
    "generate": ("causal", lambda model, texts: model.generate(texts, max_tokens=9, temperature=1.3, top_p=0.9)),
    "generate, samples": ("causal", lambda model, texts: model.generate(texts, max_tokens=5, samples=3, seed=4)),
}


def with_mask(texts: Any) -> Any:
    return f"{texts} [MASK] dog" if isinstance(texts, str) else list(map(with_mask, texts))


@pytest.mark.parametrize("name", ASKED)
def test_the_same_bits_alone_and_in_company(name: str) -> None:
    kind, ask = ASKED[name]
    model = model_of(kind)
    if not isinstance(model.for_prediction, CompiledModel):
        pytest.skip("the library is not compiled on this machine")
    alone = [bits(ask(model, text)) for text in TEXTS]
    for number in (2, 3, 5, 24):
        assert [bits(beside) for beside in ask(model, TEXTS[:number])] == alone[:number]


def bits(result: Any) -> list[Any]:
    if isinstance(result, np.ndarray):
        return list(result.tolist())
    if isinstance(result, list):
        return [bits(entry) for entry in result]
    return list(flat(result.to_dict())) if hasattr(result, "to_dict") else [result]


def test_a_row_of_a_steady_layer_does_not_depend_on_their_number() -> None:
    if library() is None:
        pytest.skip("the library is not compiled on this machine")
    torch.manual_seed(0)
    linear = torch.nn.Linear(384, 77)
    steady, x = SteadyLinear(linear), torch.randn(1030, 384)
    with torch.inference_mode():
        whole = steady(x)
        assert torch.allclose(whole, linear(x), atol=1e-6)
        for number in (1, 2, 7, 8, 100):
            assert torch.equal(steady(x[:number]), whole[:number])
