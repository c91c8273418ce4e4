"""What sentence-transformers keeps beside the encoder: vectors are its own, or the directory is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer, util

import bothways as bw
from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint
from bothways.errors import UserError
from bothways.inference.vectors import DistanceMatch, DotMatch
from bothways.model.task_heads import EmbeddingHead
from bothways.text.tokenizer import Tokenizer
from tests.helpers import Run, tiny_config, tiny_tokenizer

TEXTS = ["the red dog runs", "a cat", "The Old House", "a big blue bird sleeps in the house and eats"]


def directory(tmp_path: Path, normalize: bool = False, tokenizer: Tokenizer | None = None) -> Path:
    tokenizer = tokenizer or tiny_tokenizer()
    config = tiny_config(vocab_size=tokenizer.vocab_size)
    model = new_model(config, lambda encoder: EmbeddingHead("mean", normalize), seed=1)
    save_checkpoint(Checkpoint(model, tokenizer), tmp_path / "model")
    (tmp_path / "model" / "bothways.json").unlink()
    return tmp_path / "model"


def edit(path: Path, values: Mapping[str, Any]) -> None:
    said = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**said, **values}))


def theirs(path: Path) -> SentenceTransformer:
    return SentenceTransformer(str(path), device="cpu")


def assert_same_vectors(path: Path) -> None:
    difference = bw.load(path, precision="float32").embed(TEXTS, normalize=False) - theirs(path).encode(TEXTS)
    assert np.abs(difference).max() < 1e-5


PROMPT = {"prompts": {"query": "old cat: ", "document": ""}, "default_prompt_name": "query"}


def test_a_default_prompt_stands_before_every_text(tmp_path: Path, bothways: Run) -> None:
    path = directory(tmp_path)
    plain = bw.load(path, precision="float32").embed(TEXTS)
    edit(path / "config_sentence_transformers.json", {**PROMPT, "default_prompt_name": None})
    assert_same_vectors(path)
    edit(path / "config_sentence_transformers.json", PROMPT)
    assert_same_vectors(path)
    model = bw.load(path, precision="float32")
    vectors = model.embed(TEXTS)
    assert np.abs(vectors - plain).max() > 1e-3
    (pair,) = model.predict([{"text": TEXTS[0], "pair": TEXTS[1]}])
    assert pair.cosine == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-6)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    out = tmp_path / "out.jsonl"
    code, _, errors = bothways(
        "embed", str(path), "--in", str(tmp_path / "rows.jsonl"), "--out", str(out), "--precision", "float32"
    )
    assert code == 0, errors
    rows = [json.loads(line)["embedding"] for line in out.read_text().splitlines()]
    assert np.abs(np.array(rows) - vectors).max() < 1e-5
    save_checkpoint(model.checkpoint, tmp_path / "again")
    assert_same_vectors(tmp_path / "again")
    edit(path / "1_Pooling" / "config.json", {"include_prompt": False})
    assert_same_vectors(path)
    edit(path / "config_sentence_transformers.json", {"default_prompt_name": None})
    assert_same_vectors(path)
    edit(path / "config_sentence_transformers.json", {"default_prompt_name": "passage"})
    with pytest.raises(UserError, match="default_prompt_name is 'passage', and prompts has no text of this name"):
        bw.load(path)


def test_lower_case_before_the_tokenizer(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(lambda: [*TEXTS, "caf\u00e9 CAF\u00c9"] * 3, 200, False, 1)
    path = directory(tmp_path, tokenizer=tokenizer)
    assert_same_vectors(path)
    cased = bw.load(path).embed(["The Old House", "CAF\u00c9"])
    edit(path / "sentence_bert_config.json", {"do_lower_case": True})
    assert_same_vectors(path)
    model, lowered = bw.load(path, precision="float32"), theirs(path)
    assert np.abs(model.embed("CAF\u00c9", normalize=False) - lowered.encode("CAF\u00c9")).max() < 1e-5
    assert np.abs(model.embed(["The Old House", "CAF\u00c9"]) - cased).max() > 1e-3


def test_models_for_dot_products_rank_by_them(tmp_path: Path, bothways: Run) -> None:
    path = directory(tmp_path)
    edit(path / "config_sentence_transformers.json", {"similarity_fn_name": "dot"})
    library = theirs(path)
    query = "the dog"
    expected = util.dot_score(library.encode(query), library.encode(TEXTS))[0].numpy()
    matches = bw.load(path, precision="float32").similar(query, TEXTS)
    assert [match.index for match in matches] == np.argsort(-expected).tolist()
    assert all(isinstance(match, DotMatch) for match in matches)
    assert [match.dot for match in matches if isinstance(match, DotMatch)] == pytest.approx(
        np.sort(expected)[::-1].tolist(), rel=1e-4
    )
    cosines = util.cos_sim(library.encode(query), library.encode(TEXTS))[0].numpy()
    assert [match.cosine for match in matches] == pytest.approx([cosines[match.index] for match in matches], rel=1e-4)
    (tmp_path / "lines.txt").write_text("\n".join(TEXTS))
    arguments = ["similar", str(path), query, "--in", str(tmp_path / "lines.txt"), "--precision", "float32"]
    code, out, _ = bothways(*arguments, "--json")
    assert code == 0
    assert json.loads(out.splitlines()[0])["dot"] == pytest.approx(float(expected.max()), rel=1e-4)
    for metric, score in (("euclidean", util.euclidean_sim), ("manhattan", util.manhattan_sim)):
        edit(path / "config_sentence_transformers.json", {"similarity_fn_name": metric})
        expected = -score(library.encode(query), library.encode(TEXTS))[0].numpy()
        matches = bw.load(path, precision="float32").similar(query, TEXTS)
        assert [match.index for match in matches] == np.argsort(expected).tolist()
        assert [(match.distance, match.metric) for match in matches if isinstance(match, DistanceMatch)] == [
            (pytest.approx(expected[match.index], rel=1e-4), metric) for match in matches
        ]
        code, out, _ = bothways(*arguments, "--json")
        assert code == 0
        nearest = json.loads(out.splitlines()[0])
        assert (nearest["distance"], nearest["metric"]) == (pytest.approx(float(expected.min()), rel=1e-4), metric)
        _, out, _ = bothways(*arguments)
        assert out.startswith(f"{metric} {expected.min():.3f}\t")
    edit(path / "config_sentence_transformers.json", {"similarity_fn_name": "maxsim"})
    with pytest.raises(UserError, match="similarity_fn_name is 'maxsim'"):
        bw.load(path)


@pytest.mark.parametrize("folder", ["0_BERT", "0_Transformer"])
def test_older_directories_keep_the_encoder_in_a_folder(folder: str, tmp_path: Path) -> None:
    path = directory(tmp_path, normalize=True)
    expected = theirs(path).encode(TEXTS)
    (path / folder).mkdir()
    for file in [file for file in path.iterdir() if file.is_file() and file.name != "modules.json"]:
        file.rename(path / folder / file.name)
    (path / "config.json").write_text(json.dumps({"__version__": "0.3.8"}))
    modules = json.loads((path / "modules.json").read_text())
    modules[0].update(path=folder, type=f"sentence_transformers.models.{folder[2:]}")
    (path / "modules.json").write_text(json.dumps(modules))
    (path / folder / "sentence_bert_config.json").rename(path / folder / "sentence_roberta_config.json")
    edit(path / folder / "sentence_roberta_config.json", {"max_seq_length": 7})
    model = bw.load(path, precision="float32")
    assert model.sequence_length == 7
    assert np.abs(model.embed(TEXTS[:3]) - expected[:3]).max() < 1e-5
    if folder == "0_Transformer":
        assert np.abs(model.embed(TEXTS[:3]) - theirs(path).encode(TEXTS[:3])).max() < 1e-5
    (path / "config.json").unlink()
    assert bw.load(path).sequence_length == 7
    modules[0]["path"] = "../elsewhere"
    (path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UserError, match="is no folder of this directory"):
        bw.load(path)


def test_other_modules_and_orders_are_refused(tmp_path: Path) -> None:
    path = directory(tmp_path, normalize=True)
    modules = json.loads((path / "modules.json").read_text())
    for listed, message in (
        ([modules[0], modules[2], modules[1]], "the modules are Transformer, Normalize, Pooling"),
        ([modules[1], modules[0]], "the modules are Pooling, Transformer"),
        ([*modules, {**modules[1], "type": "sentence_transformers.models.LSTM"}], r"models\.LSTM' is not read; Trans"),
        ([modules[0], {**modules[1], "type": "custom_st.Pooling"}], "module 'custom_st.Pooling' is not read"),
        (modules[:1], "no Pooling module"),
    ):
        (path / "modules.json").write_text(json.dumps(listed))
        with pytest.raises(UserError, match=message):
            bw.load(path)
    shutil.rmtree(path)
    path = directory(tmp_path)
    for values, message in (
        ({"transformer_task": "fill-mask"}, "transformer_task is 'fill-mask'"),
        (
            {"modality_config": {"text": {"method_output_name": "pooler_output"}}},
            "method_output_name is 'pooler_output'",
        ),
        ({"query_length": 32}, "query_length is 32, which is not read"),
    ):
        before = (path / "sentence_bert_config.json").read_text()
        edit(path / "sentence_bert_config.json", values)
        with pytest.raises(UserError, match=message):
            bw.load(path)
        (path / "sentence_bert_config.json").write_text(before)
