"""In bfloat16 a weight is cast once a step, whatever the number of micro-batches, and the step stays what it was."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bothways.checkpoint.hugging_face import new_model
from bothways.data.prepare import prepare
from bothways.data.store import TokenStore
from bothways.model.families import head_builder
from bothways.tasks.pretraining import BertObjective
from bothways.train import step as step_module
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.pretrain_plan import loop_options, make_plan
from bothways.train.step import Stepper
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_config, tiny_tokenizer

OPTIONS = PretrainOptions(
    steps=2, tokens_per_step=300, sequence_length=32, precision="bfloat16", micro_batch_tokens=100
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    folder = tmp_path_factory.mktemp("casts")
    write_corpus(folder / "c.jsonl", documents=50)
    return prepare([str(folder / "c.jsonl")], tiny_tokenizer(), folder / "store")


class CountCasts(TorchDispatchMode):
    """Counts the casts of float32 tensors to bfloat16, by shape."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: Counter[tuple[int, ...]] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.ops.aten._to_copy.default and kwargs.get("dtype") == torch.bfloat16:
            self.shapes[tuple(args[0].shape)] += 1
        return function(*args, **kwargs)


def take_step(store: TokenStore, options: PretrainOptions) -> tuple[Counter[tuple[int, ...]], list[Tensor]]:
    """The casts of a step, and the weights behind two."""
    model = new_model(tiny_config(vocab_size=store.vocab_size), head_builder("pretraining"), seed=0)
    stepper = Stepper(model, BertObjective(), make_plan(store, options), loop_options(options, model.config))
    with CountCasts() as casts:
        stepper.step(0)
    stepper.step(1)
    return casts.shapes, [parameter.detach() for parameter in model.parameters()]


def test_a_weight_is_cast_once_a_step(store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config()
    of_weight = (config.intermediate_size, config.hidden_size)
    casts, weights = take_step(store, OPTIONS)
    assert casts[of_weight] == config.num_hidden_layers
    whole, _ = take_step(store, replace(OPTIONS, micro_batch_tokens=1000))
    assert whole[of_weight] == casts[of_weight]
    monkeypatch.setattr(step_module, "_kept_casts", contextlib.nullcontext)
    more, same = take_step(store, OPTIONS)
    assert more[of_weight] > casts[of_weight]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(weights, same, strict=True))
