"""Export: every head as ONNX, read by ONNX Runtime and OpenVINO, gives what the model gives."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from torch import nn

import bothways as bw
from bothways.checkpoint.hugging_face import Checkpoint, load_checkpoint, new_model, save_checkpoint
from bothways.errors import UserError
from bothways.inference import onnx
from bothways.model.families import head_builder
from bothways.model.heads import Head, Model
from bothways.model.pooling import POOLINGS, Dense, Normalize, TokenPooling
from bothways.model.task_heads import EmbeddingHead
from bothways.tasks.classify import ClassifyTask
from tests.helpers import Run, tiny_config, tiny_tokenizer

pytestmark = pytest.mark.slow

HEADS: dict[str, Callable[[Any], Head]] = {
    "sequence": head_builder("sequence", 3),
    "token": head_builder("token", 4),
    "span": head_builder("span"),
    "choice": head_builder("choice"),
    "masked": head_builder("masked-LM"),
    "pretraining": head_builder("pretraining"),
    "causal": head_builder("causal-LM"),
    "pooler": head_builder("encoder"),
    "mean": lambda encoder: EmbeddingHead(),
    "cls": lambda encoder: EmbeddingHead("cls", normalize=False),
    "poolings": lambda encoder: EmbeddingHead(
        TokenPooling(POOLINGS), True, [Normalize(), Dense(nn.Linear(len(POOLINGS) * 32, 8), nn.GELU())]
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_every_head_in_onnx_runtime_and_openvino(name: str, tmp_path: Path) -> None:
    # one layer, as what is exported is traced operation by operation; the real model below has six
    config = tiny_config(is_decoder=name == "causal", initializer_range=0.3, num_hidden_layers=1)
    model = new_model(config, HEADS[name], seed=2).eval()
    done = onnx.export_onnx(Checkpoint(model, tiny_tokenizer()), tmp_path / "out")
    assert done.difference < 1e-4
    # lengths that were not there at export, with padding on the right
    generator = np.random.default_rng(1)
    lengths = [19, 2, 11, 5]
    ids = generator.integers(0, model.config.vocab_size, (4, 19))
    mask = (np.arange(19) < np.array(lengths)[:, None]).astype(np.int64)
    types = mask * (np.arange(19) >= 3)
    inputs = [one.reshape(2, 2, 19) if name == "choice" else one for one in (ids * mask, mask, types)]
    session = onnxruntime.InferenceSession(done.file)
    assert [one.name for one in session.get_inputs()] == ["input_ids", "attention_mask", "token_type_ids"]
    by_runtime = session.run(None, dict(zip(onnx.INPUTS, inputs, strict=True)))
    compiled = openvino.Core().compile_model(str(done.file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    by_openvino = list(compiled(inputs).values())
    assert len(by_runtime) == len(by_openvino) == len(session.get_outputs())
    for found in (by_runtime, by_openvino):
        outputs = [one.reshape(4, 1) for one in found] if name == "choice" else found
        for row, length in enumerate(lengths):
            expected = onnx.packed_outputs(model, ids[row, :length], types[row, :length])
            for output, wanted in zip(outputs, expected, strict=True):
                np.testing.assert_allclose(output[row][: len(wanted)], wanted, atol=2e-4, rtol=1e-4)


def test_the_real_model_with_its_own_tokenizer_and_in_int8(minilm: Path, tmp_path: Path, bothways: Run) -> None:
    own = tmp_path / "texts.txt"
    own.write_text("A red door.\nThe cat sleeps on the old red sofa.\n")
    code, said, err = bothways("export", "onnx", minilm, "--out", tmp_path / "out", "--int8", "--calibrate", own)
    assert code == 0, err
    assert "opset 20, last_hidden_state, sentence_embedding; batch and length are free" in said
    assert re.search(r"on your texts: cosine 0\.9\d+ with float32 on 2 texts\n", said)
    texts = ["My router has no light.", "The bill is wrong", "a " * 40]
    expected = bw.load(minilm, precision="float32").embed(texts)
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    tokenizer.enable_padding(pad_id=0)
    encodings = tokenizer.encode_batch(texts)
    inputs = {
        "input_ids": np.array([one.ids for one in encodings]),
        "attention_mask": np.array([one.attention_mask for one in encodings]),
        "token_type_ids": np.array([one.type_ids for one in encodings]),
    }
    for file, least in (("model.onnx", 0.999999), ("model_quantized.onnx", 0.97)):
        _, vectors = onnxruntime.InferenceSession(tmp_path / "out" / file).run(None, inputs)
        assert (vectors * expected).sum(1).min() > least
    sizes = [(tmp_path / "out" / name).stat().st_size for name in ("model.onnx", "model_quantized.onnx")]
    assert sizes[1] < 0.3 * sizes[0]


def test_a_default_prompt_is_said_or_refused(pretrained: Path, tmp_path: Path, bothways: Run) -> None:
    checkpoint = load_checkpoint(pretrained, lambda encoder: EmbeddingHead("mean", normalize=True))
    state = {"task": "similar", "prompt": "a dog ", "prompts": {"query": "a dog "}, "default_prompt_name": "query"}
    save_checkpoint(replace(checkpoint, metadata=state), tmp_path / "model")
    code, said, err = bothways("export", "onnx", tmp_path / "model", "--out", tmp_path / "out")
    assert code == 0, err
    assert "behind the prompt 'a dog ': the ONNX model reads tokens, so put it before every text" in said
    (encoding,) = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).encode_batch(["a dog runs"])
    inputs = [np.array([row]) for row in (encoding.ids, encoding.attention_mask, encoding.type_ids)]
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    assert session.get_modelmeta().custom_metadata_map == {"prompt": "a dog "}
    _, vectors = session.run(None, dict(zip(onnx.INPUTS, inputs, strict=True)))
    assert vectors[0] == pytest.approx(bw.load(tmp_path / "model", precision="float32").embed("runs"), abs=1e-5)
    settings = json.loads((tmp_path / "out" / "config_sentence_transformers.json").read_text())
    assert settings["prompts"][settings["default_prompt_name"]] == "a dog "
    pool = TokenPooling(("mean",), include_prompt=False)
    left_out = Checkpoint(Model(checkpoint.model.encoder, EmbeddingHead(pool)), checkpoint.tokenizer, state)
    save_checkpoint(replace(left_out, metadata={**state, "include_prompt": False}), tmp_path / "left-out")
    code, _, err = bothways("export", "onnx", tmp_path / "left-out", "--out", tmp_path / "no")
    assert (code, err.count("leaves its default prompt 'a dog ' out of the pooling")) == (2, 1)
    assert not (tmp_path / "no").exists()


def test_sentence_transformers_directories(minilm: Path, pretrained: Path, tmp_path: Path, bothways: Run) -> None:
    texts = ["the dog sat", "router"]
    for source, arguments, pooling in ((minilm, [], "mean"), (pretrained, ["--pooling", "cls"], "cls")):
        out = tmp_path / pooling
        code, said, err = bothways("export", "sentence-transformers", source, "--out", out, *arguments)
        assert code == 0, err
        assert f"pooling {pooling}" in said
        theirs = SentenceTransformer(str(out), device="cpu").encode(texts)
        np.testing.assert_allclose(theirs, bw.load(out, precision="float32").embed(texts), atol=1e-5)


def test_what_is_not_exported(
    minilm: Path, pretrained: Path, tmp_path: Path, bothways: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("kept")
    half = load_checkpoint(pretrained, head_builder("sequence", 2), labels=["a", "b"])
    task = ClassifyTask(labels=("a", "b"))
    save_checkpoint(Checkpoint(half.model, half.tokenizer, task.to_json()), tmp_path / "tickets")
    for arguments, complaint in (
        (["onnx", pretrained, "--out", tmp_path / "mine", "--overwrite"], "mine holds something else (letter.txt)"),
        (["onnx", pretrained, "--out", pretrained], "is there already, and is not an earlier export"),
        (["sentence-transformers", pretrained, "--out", tmp_path / "tickets"], "is not an earlier export"),
        (["onnx", pretrained, "--out", tmp_path / "o", "--pooling", "cls"], "--pooling: is for export sentence"),
        (["sentence-transformers", pretrained, "--out", tmp_path / "o", "--int8"], "--int8: is for export onnx"),
        (["sentence-transformers", minilm, "--out", tmp_path / "o", "--pooling", "cls"], "was trained with mean"),
        (["tflite", pretrained, "--out", tmp_path / "o"], "tflite"),
    ):
        code, _, err = bothways("export", *arguments)
        assert code == 2
        assert complaint in err
    assert (tmp_path / "mine" / "letter.txt").read_text() == "kept"
    monkeypatch.setattr(onnx, "_compare", lambda model, path: (0.5, 0.1))
    tickets = load_checkpoint(tmp_path / "tickets")
    with pytest.raises(UserError, match=r"ONNX Runtime's outputs differ by 0\.5 from the model's"):
        onnx.export_onnx(tickets, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()
