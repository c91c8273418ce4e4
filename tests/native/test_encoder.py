"""The compiled layers against the model's own, at every width of vectors that they are built for."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
import torch

from bothways.batch import PackedBatch, pack_sequences
from bothways.checkpoint.hugging_face import load_checkpoint, new_model
from bothways.inference import compiled
from bothways.inference.compiled import CompiledEncoder
from bothways.inference.prepared import describe_layers, prepare_model
from bothways.model.heads import PoolerHead
from tests.helpers import tiny_config


def batch_of(lengths: list[int], vocabulary: int, segments: int = 2) -> PackedBatch:
    generator = np.random.default_rng(sum(lengths))
    return pack_sequences(
        [(generator.integers(0, vocabulary, n), (np.arange(n) > n // 2).astype(int) * (segments > 1)) for n in lengths]
    )


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
    monkeypatch.setattr(compiled, "library", lambda: library)
    config = tiny_config(initializer_range=0.2, **SHAPES[shape])  # type: ignore[arg-type]
    encoder = new_model(config, PoolerHead, seed=5).eval().encoder
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
    monkeypatch.setattr(compiled, "library", lambda: library)
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


def test_what_is_no_number_is_not_hidden(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "library", lambda: library)
    encoder = new_model(tiny_config(), PoolerHead, seed=1).eval().encoder
    width = encoder.config.hidden_size
    with torch.inference_mode():
        encoder.layers[0].attention.qkv.weight[width : 2 * width] = float("nan")  # of the keys: scores, not values
        assert CompiledEncoder(encoder)(batch_of([9, 4], encoder.config.vocab_size), None, 1).isnan().all()


def test_what_is_in_no_table_is_an_error() -> None:
    config = tiny_config()
    fast = prepare_model(new_model(config, PoolerHead, seed=1))
    for ids, types in (([1, config.vocab_size], [0, 0]), ([1, -1], [0, 0]), ([1, 1], [0, 2])):
        with pytest.raises(IndexError):
            fast(pack_sequences([(np.array(ids), np.array(types))]))


def test_without_the_library_torchs_layers_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = new_model(tiny_config(), PoolerHead, seed=1)
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
