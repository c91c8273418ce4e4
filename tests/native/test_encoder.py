"""The compiled layers against the model's own, at every width of vectors that they are built for."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bothways.batch import PackedBatch, pack_sequences
from bothways.checkpoint.hugging_face import load_checkpoint, new_model
from bothways.inference import compiled, packed_linear
from bothways.inference.compiled import FORMATS, CompiledEncoder
from bothways.inference.prepared import describe_layers, prepare_model
from bothways.model.encoder import Encoder, Layer
from bothways.model.families import head_builder
from bothways.precision import InferencePrecision
from tests.helpers import tiny_config


def batch_of(lengths: list[int], vocabulary: int, segments: int = 2) -> PackedBatch:
    generator = np.random.default_rng(sum(lengths))
    return pack_sequences(
        [(generator.integers(0, vocabulary, n), (np.arange(n) > n // 2).astype(int) * (segments > 1)) for n in lengths]
    )


def use_library(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (compiled, packed_linear):
        monkeypatch.setattr(module, "library", lambda: library)


SHAPES = {
    "plain": {},
    "odd sizes": {"hidden_size": 60, "num_attention_heads": 5, "intermediate_size": 101},
    "one wide head": {"hidden_size": 72, "num_attention_heads": 1, "intermediate_size": 200, "num_hidden_layers": 1},
    "from left to right": {"is_decoder": True},
    "sines": {"positions": "sinusoidal", "type_vocab_size": 1},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_as_the_model_itself(shape: str, threads: int, library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    use_library(library, monkeypatch)
    config = tiny_config(initializer_range=0.2, **SHAPES[shape])  # type: ignore[arg-type]
    encoder = new_model(config, head_builder("encoder"), seed=5).eval().encoder
    fast = CompiledEncoder(encoder)
    for lengths in ([1], [7], [130, 64, 33, 33, 12, 5, 1, 1]):
        batch = batch_of(lengths, config.vocab_size, config.type_vocab_size)
        with torch.inference_mode():
            for rows in (None, [0], [batch.num_tokens - 1, 0, 0], []):
                wanted = None if rows is None else torch.tensor(rows, dtype=torch.long)
                expected = encoder(batch, wanted)
                torch.testing.assert_close(fast(batch, wanted, threads), expected, atol=1e-5, rtol=1e-5)


def test_the_real_model_and_bit_for_bit_alone_as_in_company(
    minilm: Path, library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_library(library, monkeypatch)
    model = load_checkpoint(minilm).model
    fast = prepare_model(model)
    assert describe_layers(fast, "float32") == "float32, compiled layers"
    lengths = [180, 64, 64, 31, 6, 6, 2]
    together = batch_of(lengths, 30522)
    with torch.inference_mode():
        torch.testing.assert_close(fast(together), model(together), atol=1e-5, rtol=1e-5)
        states = fast.encoder(together).split(lengths)
        for number, sequence in enumerate(together.input_ids.split(lengths)):
            types = together.token_type_ids.split(lengths)[number]
            alone = fast.encoder(pack_sequences([(sequence.numpy(), types.numpy())]))
            assert torch.equal(alone, states[number])


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.parametrize("shape", SHAPES)
def test_narrow_formats_are_near_and_the_same_in_any_company_and_on_any_threads(
    shape: str, precision: InferencePrecision, library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of random ids and weights; the cosines of a real model's texts are in tests/inference/test_agreement.py."""
    use_library(library, monkeypatch)
    config = tiny_config(initializer_range=0.2, **SHAPES[shape])  # type: ignore[arg-type]
    encoder = new_model(config, head_builder("encoder"), seed=5).eval().encoder
    fast, lengths = CompiledEncoder(encoder, precision), [40, 7, 1]
    batch = batch_of(lengths, config.vocab_size, config.type_vocab_size)
    with torch.inference_mode():
        together = fast(batch)
        assert (F.cosine_similarity(together, encoder(batch)) > 0.98).all()
        assert torch.equal(fast(batch, None, 3), together)
        for rows in (torch.tensor([batch.num_tokens - 1, 0, 0]), torch.tensor([], dtype=torch.long)):
            assert torch.equal(fast(batch, rows, 2), together[rows])
        for number, sequence in enumerate(batch.input_ids.split(lengths)):
            types = batch.token_type_ids.split(lengths)[number]
            alone = fast(pack_sequences([(sequence.numpy(), types.numpy())]))
            assert torch.equal(alone, together.split(lengths)[number])


@pytest.mark.parametrize("precision", FORMATS)
def test_what_is_no_number_is_not_hidden(
    precision: InferencePrecision, library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_library(library, monkeypatch)
    encoder = new_model(tiny_config(), head_builder("encoder"), seed=1).eval().encoder
    width = encoder.config.hidden_size
    with torch.inference_mode():
        encoder.layers[0].attention.qkv.weight[width : 2 * width] = float("nan")  # of the keys: scores, not values
        assert CompiledEncoder(encoder, precision)(batch_of([9, 4], encoder.config.vocab_size), None, 1).isnan().all()


def test_what_is_in_no_table_is_an_error() -> None:
    config = tiny_config()
    fast = prepare_model(new_model(config, head_builder("encoder"), seed=1))
    for ids, types in (([1, config.vocab_size], [0, 0]), ([1, -1], [0, 0]), ([1, 1], [0, 2])):
        with pytest.raises(IndexError):
            fast(pack_sequences([(np.array(ids), np.array(types))]))


class PreNormLayer(Layer):
    """Norms in front of the parts instead of behind them, with the parameters of a `Layer`."""

    def forward(self, hidden: Tensor, *args: Any) -> Tensor:
        hidden = hidden + self.attention(self.attention_norm(hidden), *args)
        return hidden + self.output(self.activation(self.intermediate(self.output_norm(hidden))))


def _become_pre_norm(encoder: Encoder) -> None:
    encoder.layers[1].__class__ = PreNormLayer


def _add_hook(encoder: Encoder) -> None:
    encoder.layers[1].register_forward_hook(lambda module, args, output: -output)


CHANGES: dict[str, Callable[[Encoder], object]] = {
    "a subclass": _become_pre_norm,
    "another activation": lambda encoder: setattr(encoder.layers[1], "activation", F.relu),
    "a lambda of the same function": lambda encoder: setattr(encoder.layers[1], "activation", lambda x: F.gelu(x)),
    "no bias": lambda encoder: setattr(encoder.layers[1].attention.qkv, "bias", None),
    "a norm without bias": lambda encoder: setattr(encoder.layers[0].output_norm, "bias", None),
    "no norm": lambda encoder: setattr(encoder.layers[0], "attention_norm", nn.Identity()),
    "unequal epsilon": lambda encoder: setattr(encoder.layers[1].output_norm, "eps", 1e-5),
    "unequal heads": lambda encoder: vars(encoder.layers[1].attention).update(num_heads=1, head_size=64),
    "a causal layer": lambda encoder: setattr(encoder.layers[1].attention, "causal", True),
    "a new attribute": lambda encoder: setattr(encoder.layers[0].attention, "window", 64),
    "another forward": lambda encoder: setattr(encoder.layers[0], "forward", lambda hidden, *args: hidden),
    "a hook": _add_hook,
    "another dropout": lambda encoder: setattr(encoder.layers[0], "dropout", nn.AlphaDropout(0.1)),
    "a wider layer": lambda encoder: setattr(encoder.layers[1], "intermediate", nn.Linear(64, 96)),
    "a narrow table": lambda encoder: setattr(encoder.embeddings, "token", nn.Embedding(100, 32)),
    "a table with a largest norm": lambda encoder: setattr(encoder.embeddings.token, "max_norm", 1.0),
    "half precision": lambda encoder: encoder.layers[1].bfloat16(),
    "no layers": lambda encoder: setattr(encoder, "layers", nn.ModuleList()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_encoder_that_differs_in_anything_is_not_supported(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "library", lambda: "there")
    encoder = new_model(tiny_config(hidden_size=64, num_hidden_layers=2), head_builder("encoder"), seed=1).encoder
    assert compiled.supports(encoder)
    CHANGES[change](encoder)
    assert not compiled.supports(encoder)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_config_is_supported(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "library", lambda: "there")
    config = tiny_config(**SHAPES[shape])  # type: ignore[arg-type]
    assert compiled.supports(new_model(config, head_builder("encoder"), seed=1).encoder)
    other = dataclasses.replace(config, hidden_act="gelu_new")
    assert not compiled.supports(new_model(other, head_builder("encoder"), seed=1).encoder)


def test_without_the_library_torchs_layers_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = new_model(tiny_config(), head_builder("encoder"), seed=1)
    batch = batch_of([9, 4], model.config.vocab_size)
    with torch.inference_mode():
        expected = prepare_model(model)(batch)
    monkeypatch.setattr(compiled, "library", lambda: None)
    monkeypatch.setattr("bothways.inference.prepared.library", lambda: None)
    plain = prepare_model(model)
    reason = "none compiled: install Bothways again where there is a C++ compiler"
    assert describe_layers(plain, "float32") == f"float32, torch's layers ({reason})"
    with torch.inference_mode():
        torch.testing.assert_close(plain(batch), expected, atol=1e-5, rtol=1e-5)
