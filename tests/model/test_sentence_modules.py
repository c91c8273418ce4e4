"""Directories that sentence-transformers writes: poolings, Dense modules, prompts; read, trained, and written again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn

import bothways as bw
from bothways.checkpoint.hugging_face import save_checkpoint
from bothways.errors import UserError
from tests.helpers import Run
from tests.model.test_sentence_transformers import TEXTS, directory, edit, theirs

PROMPTS = {"query": "the old cat: ", "document": "", "passage": "a bird "}
SIZE = 32


def made_by_them(tmp_path: Path, modes: str | Sequence[str], *behind: nn.Module, **settings: Any) -> Path:
    """A directory that sentence-transformers wrote. settings: of Pooling `include_prompt`, else of the whole model."""
    torch.manual_seed(0)
    pooled = {name: settings.pop(name) for name in ("include_prompt",) if name in settings}
    transformer = Transformer(str(directory(tmp_path)))
    pooling = Pooling(SIZE, modes, **pooled)  # type: ignore[arg-type]
    model = SentenceTransformer(modules=[transformer, pooling, *behind], device="cpu", **settings)
    model.save_pretrained(str(tmp_path / "theirs"), create_model_card=False)
    return tmp_path / "theirs"


def assert_equal(ours: Path, library: SentenceTransformer, **prompt: str) -> None:
    vectors = bw.load(ours, precision="float32").embed(TEXTS, normalize=False, **prompt)
    expected = library.encode(TEXTS, **prompt)
    assert vectors.shape == expected.shape
    assert np.abs(vectors - expected).max() < 1e-5


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SentenceTransformer]:
    """A directory with a prompt, and the same in sentence-transformers; tests set the pooling of both."""
    path = made_by_them(tmp_path_factory.mktemp("pooled"), "mean", prompts=PROMPTS, default_prompt_name="query")
    return path, theirs(path)


@pytest.mark.parametrize("modes", [
    "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens", ("lasttoken", "cls"), ("cls", "mean"),
    ("weightedmean", "max", "cls"),
])  # fmt: skip
@pytest.mark.parametrize("include_prompt", [True, False])
def test_poolings_are_theirs_and_are_written_again(
    modes: str | tuple[str, ...], include_prompt: bool, tmp_path: Path, pooled: tuple[Path, SentenceTransformer]
) -> None:
    path, library = pooled
    library[1] = Pooling(SIZE, modes, include_prompt)  # type: ignore[arg-type]
    edit(path / "1_Pooling" / "config.json", {"pooling_mode": modes, "include_prompt": include_prompt})
    for prompt in ({}, {"prompt_name": "passage"}, {"prompt": "big red house eats "}, {"prompt": ""}):
        assert_equal(path, library, **prompt)
    save_checkpoint(bw.load(path).checkpoint, tmp_path / "again")
    again = Pooling.load(str(tmp_path / "again" / "1_Pooling"))
    assert (again.pooling_mode, again.include_prompt) == (modes, include_prompt)
    settings = [json.loads((at / "config_sentence_transformers.json").read_text()) for at in (path, tmp_path / "again")]
    assert [(said["prompts"], said["default_prompt_name"]) for said in settings] == [(PROMPTS, "query")] * 2


def test_several_switches_stand_beside_each_other_in_their_order(tmp_path: Path) -> None:
    path = directory(tmp_path)
    switches = ("pooling_mode_weightedmean_tokens", "pooling_mode_max_tokens", "pooling_mode_cls_token")
    edit(path / "1_Pooling" / "config.json", dict.fromkeys(switches, True))
    assert_equal(path, theirs(path))
    assert bw.load(path).embed("a cat").shape == (4 * SIZE,)
    edit(path / "1_Pooling" / "config.json", {"pooling_mode_attention": True})
    with pytest.raises(UserError, match="pools by cls, max, mean, weightedmean, pooling_mode_attention; read are mean"):
        bw.load(path)


@pytest.mark.parametrize("behind", [
    (Dense(SIZE, 8),),
    (Dense(SIZE, 48, activation_function=nn.GELU()), Dense(48, 8, bias=False, activation_function=None), Normalize()),
    (Normalize(), Dense(SIZE, 24, activation_function=nn.ReLU(), use_residual=True)),
    (Dense(SIZE, SIZE, use_residual=True), Normalize(), Dense(SIZE, 4)),
])  # fmt: skip
def test_dense_modules_are_theirs_and_are_written_again(behind: Sequence[nn.Module], tmp_path: Path) -> None:
    path = made_by_them(tmp_path, "mean", *behind, similarity_fn_name="manhattan")
    model, library = bw.load(path, precision="float32"), theirs(path)
    expected = library.encode(TEXTS)
    if not isinstance(behind[-1], Normalize):
        assert_equal(path, library)
    assert np.abs(model.embed(TEXTS) - expected / np.linalg.norm(expected, axis=1, keepdims=True)).max() < 1e-5
    assert [match.index for match in model.similar(TEXTS[0], TEXTS)] == np.argsort(
        -library.similarity(expected[:1], expected)[0].numpy()
    ).tolist()
    save_checkpoint(model.checkpoint, tmp_path / "again")
    again = theirs(tmp_path / "again")
    assert again.similarity_fn_name == "manhattan"
    assert np.abs(again.encode(TEXTS) - expected).max() < 1e-5
    assert "head" not in " ".join(load_file(tmp_path / "again" / "model.safetensors"))
    (pair,) = model.predict([{"text": TEXTS[0], "pair": TEXTS[1]}])
    assert pair.vectors == pytest.approx(expected[:2], abs=1e-5)
    half = bw.load(path, precision="bfloat16")
    assert (half.embed(TEXTS) * model.embed(TEXTS)).sum(1).min() > 0.999
    assert half.predict([{"text": TEXTS[0], "pair": TEXTS[1]}])[0].cosine == pytest.approx(pair.cosine, abs=0.02)


def test_what_a_dense_cannot_be_is_refused_by_name(tmp_path: Path) -> None:
    path = made_by_them(tmp_path, ("cls", "mean"), Dense(2 * SIZE, 8))
    config = path / "2_Dense" / "config.json"
    said = config.read_text()
    for values, message in (
        ({"activation_function": "os.system"}, r"2_Dense/config\.json: the activation is 'os.system'; read are torch"),
        ({"activation_function": "torch.nn.modules.activation.PReLU"}, "the activation is 'torch.nn.*PReLU'"),
        ({"in_features": SIZE}, "in_features is 32, and the vectors that come to it have 64 numbers"),
        ({"out_features": "8"}, "out_features is '8', expected a size"),
        ({"module_input_name": "token_embeddings"}, "module_input_name is 'token_embeddings'"),
        ({"bias": False}, r"2_Dense: the weights are .*linear\.bias.*and config.json asks for"),
    ):
        edit(config, values)
        with pytest.raises(UserError, match=message):
            bw.load(path)
        config.write_text(said)
    for settings, message in (
        ({"truncate_dim": 4}, "truncate_dim is 4, and vectors are not cut here"),
        ({"prompts": {"query": 3}}, "prompts is .* expected a text for each name"),
        ({"model_type": "MultiVectorEncoder"}, "model_type is 'MultiVectorEncoder'"),
    ):
        before = (path / "config_sentence_transformers.json").read_text()
        edit(path / "config_sentence_transformers.json", settings)
        with pytest.raises(UserError, match=message):
            bw.load(path)
        (path / "config_sentence_transformers.json").write_text(before)
    weights = load_file(path / "2_Dense" / "model.safetensors")
    weights["linear.weight"][0, 0] = torch.nan
    save_file(weights, path / "2_Dense" / "model.safetensors")
    with pytest.raises(UserError, match=r"2_Dense: linear\.weight holds NaN"):
        bw.load(path)


def test_queries_and_documents_have_prompts_of_their_own(tmp_path: Path, bothways: Run) -> None:
    prompts = {**PROMPTS, "document": "in the house "}
    path = made_by_them(tmp_path, "mean", prompts=prompts, default_prompt_name="passage")
    model, library = bw.load(path, precision="float32"), theirs(path)
    (tmp_path / "lines.txt").write_text("\n".join(TEXTS))
    arguments = ["similar", str(path), "a dog", "--in", str(tmp_path / "lines.txt"), "--precision", "float32", "--json"]
    for asked, query, document in (
        ({}, library.encode_query("a dog"), library.encode_document(TEXTS)),
        ({"prompt_name": "query"}, *(library.encode(texts, prompt_name="query") for texts in ("a dog", TEXTS))),
        ({"prompt": "eats "}, *(library.encode(texts, prompt="eats ") for texts in ("a dog", TEXTS))),
    ):
        expected = library.similarity(query, document)[0].numpy()
        matches = model.similar("a dog", TEXTS, **asked)
        assert [match.index for match in matches] == np.argsort(-expected).tolist()
        assert [match.cosine for match in matches] == pytest.approx(np.sort(expected)[::-1], abs=1e-5)
        flags = [word for name, value in asked.items() for word in (f"--{name.replace('_', '-')}", value)]
        code, out, _ = bothways(*arguments, *flags)
        assert code == 0
        assert json.loads(out.splitlines()[0])["cosine"] == pytest.approx(float(expected.max()), abs=1e-5)
    with pytest.raises(UserError, match=r"this name, did you mean 'query'\?; there are document, passage, query"):
        model.similar("a dog", TEXTS, prompt_name="qery")
    with pytest.raises(UserError, match="prompt is given as well; choose one"):
        model.embed("a dog", prompt_name="query", prompt="x")
    code, out, _ = bothways("info", str(path))
    assert code == 0
    assert "vectors: 32 numbers, pooled by mean; compared by cosine" in out
    assert "prompts: document, passage, query; passage stands before every text" in out
    code, _, errors = bothways("embed", str(path), "a dog", "--prompt-name", "clustering")
    assert (code, errors.count("\n")) == (2, 1)
    assert "--prompt-name clustering: " in errors
    edit(path / "config_sentence_transformers.json", {"prompts": {"query": "a ", "passage": "the old "}})
    expected = library.similarity(library.encode("a dog", prompt="a "), library.encode(TEXTS, prompt="the old "))[0]
    scores = {match.index: match.cosine for match in bw.load(path, precision="float32").similar("a dog", TEXTS)}
    assert [scores[n] for n in range(len(TEXTS))] == pytest.approx(expected.tolist(), abs=1e-5)
    with pytest.raises(UserError, match="no prompt of this name; it has none"):
        bw.load(directory(tmp_path / "plain")).embed("a dog", prompt_name="query")


def test_embed_of_a_table_stands_behind_the_prompt(tmp_path: Path, bothways: Run) -> None:
    path = made_by_them(tmp_path, ("max", "mean"), Dense(2 * SIZE, 8), prompts=PROMPTS, include_prompt=False)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    arguments = ["embed", str(path), "--in", str(tmp_path / "rows.jsonl"), "--precision", "float32", "--no-normalize"]
    for name in ("out.jsonl", "out.npy"):
        code, _, errors = bothways(*arguments, "--out", str(tmp_path / name), "--prompt-name", "passage")
        assert code == 0, errors
    rows = [json.loads(line)["embedding"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    expected = theirs(path).encode(TEXTS, prompt_name="passage")
    assert np.array(rows) == pytest.approx(expected, abs=1e-5)
    assert np.load(tmp_path / "out.npy") == pytest.approx(expected, abs=1e-5)
    code, out, _ = bothways(*arguments[:2], TEXTS[0], *arguments[4:], "--prompt", "a bird ")
    assert code == 0
    assert json.loads(out)["embedding"] == pytest.approx(expected[0].tolist(), abs=1e-5)


PAIRS = [{"text": text, "pair": pair, "score": float(text == pair)} for text in TEXTS for pair in TEXTS]


def test_training_keeps_modules_prompts_and_similarity(tmp_path: Path) -> None:
    path = made_by_them(
        tmp_path, ("cls", "mean"), Dense(2 * SIZE, 8), Normalize(), include_prompt=False, prompts=PROMPTS,
        default_prompt_name="query", similarity_fn_name="dot",
    )  # fmt: skip
    before = theirs(path)
    options = {"steps": 2, "batch_size": 8, "lr": 1e-2, "dropout": 0.0, "precision": "float32", "device": "cpu"}
    bw.finetune("similar", path, PAIRS, PAIRS, tmp_path / "run", options, quiet=True)
    made = tmp_path / "run" / "model"
    again = theirs(made)
    assert (again.prompts, again.default_prompt_name) == (before.prompts, "query")
    assert again.similarity_fn_name == "dot"
    assert [type(module).__name__ for module in again] == ["Transformer", "Pooling", "Dense", "Normalize"]
    weights = [load_file(there / "2_Dense" / "model.safetensors")["linear.weight"] for there in (path, made)]
    assert not torch.equal(*weights)
    ours, expected = bw.load(made, precision="float32"), again.encode(TEXTS)
    assert ours.embed(TEXTS) == pytest.approx(expected, abs=1e-5)
    (pair,) = ours.predict([{"text": TEXTS[0], "pair": TEXTS[1]}])
    assert pair.vectors == pytest.approx(expected[:2], abs=1e-5)
    with pytest.raises(UserError, match=r"pooling='max': what the model has behind its own pooling \(cls, mean\)"):
        bw.finetune("similar", path, PAIRS, None, tmp_path / "max", options, pooling="max", quiet=True)


def test_training_takes_another_pooling_where_it_is_asked_for(tmp_path: Path) -> None:
    path = made_by_them(tmp_path, "lasttoken", Normalize(), prompts={"query": "a "})
    options = {"steps": 1, "dropout": 0.0, "precision": "float32", "device": "cpu"}
    for asked, pooling, normalize in (({}, "lasttoken", True), ({"pooling": "max", "normalize": False}, "max", False)):
        out = tmp_path / f"run-{pooling}"
        bw.finetune("similar", path, PAIRS, None, out, options, quiet=True, **asked)
        library = theirs(out / "model")
        assert library[1].pooling_mode == pooling
        assert library.prompts["query"] == "a "
        assert len(library) == (3 if normalize else 2)
        vectors = bw.load(out, precision="float32").embed(TEXTS, normalize=normalize)
        assert vectors == pytest.approx(library.encode(TEXTS), abs=1e-5)
        options_there = json.loads((out / "model" / "bothways.json").read_text())["options"]
        assert (options_there["pooling"], options_there["normalize"]) == (pooling, normalize)
