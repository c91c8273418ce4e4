"""Texts in the order of a cross-encoder, as sentence-transformers has it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import BertConfig, BertForSequenceClassification

import bothways as bw
from bothways.checkpoint.hugging_face import save_checkpoint
from bothways.errors import UserError
from tests.helpers import Run, tiny_config, tiny_tokenizer

TEXTS = ["the red dog runs", "a cat", "the old house", "a big blue bird sleeps in the house and eats"]


def cross_encoder(folder: Path, labels: int, **config: object) -> Path:
    torch.manual_seed(3)
    values = {**tiny_config(initializer_range=0.4).to_dict(), "num_labels": labels, **config}
    BertForSequenceClassification(BertConfig(**values)).save_pretrained(folder)
    tiny_tokenizer().save(folder)
    return folder


def test_order_and_scores_are_those_of_sentence_transformers(tmp_path: Path, bothways: Run) -> None:
    path = cross_encoder(tmp_path / "one", 1)
    model, theirs = bw.load(path, precision="float32"), CrossEncoder(str(path), activation_fn=torch.nn.Identity())
    expected = theirs.rank("the dog", TEXTS)
    found = model.rerank("the dog", TEXTS)
    assert [hit.index for hit in found] == [entry["corpus_id"] for entry in expected]
    np.testing.assert_allclose([hit.score for hit in found], [entry["score"] for entry in expected], atol=1e-5)
    assert [hit.text for hit in found] == [TEXTS[hit.index] for hit in found]
    assert model.rerank(["the dog", "a bird"], TEXTS, 2)[0] == found[:2]
    (tmp_path / "lines.txt").write_text("\n\n".join(TEXTS))
    code, output, _ = bothways("rerank", path, "the dog", "--in", tmp_path / "lines.txt", "--top-k", 1)
    assert code == 0
    assert output == f"{found[0].score:.3f}\t{tmp_path / 'lines.txt'}:{2 * found[0].index + 1}\t{found[0].text}\n"


SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"


@pytest.mark.parametrize("config", [
    {"sentence_transformers": {"activation_fn": SIGMOID, "version": "5.1.0"}},
    {"sentence_transformers": {"version": "5.1.0"}},
    {"sentence_transformers": {"activation_fn": IDENTITY}, "sbert_ce_default_activation_function": SIGMOID},
    {"sbert_ce_default_activation_function": IDENTITY},
])  # fmt: skip
def test_the_number_goes_through_the_function_that_the_directory_names(
    config: dict[str, object], tmp_path: Path
) -> None:
    path = cross_encoder(tmp_path / "one", 1, **config)
    theirs = CrossEncoder(str(path), device="cpu")
    pairs = [("the dog", text) for text in TEXTS]
    expected = theirs.predict(pairs)
    model = bw.load(path, precision="float32")
    np.testing.assert_allclose([found.value for found in model.classify(pairs)], expected, atol=1e-5)
    scores = {hit.index: hit.score for hit in model.rerank("the dog", TEXTS)}
    np.testing.assert_allclose([scores[n] for n in range(len(TEXTS))], expected, atol=1e-5)
    save_checkpoint(model.checkpoint, tmp_path / "again")
    np.testing.assert_allclose(CrossEncoder(str(tmp_path / "again"), device="cpu").predict(pairs), expected, atol=1e-5)
    theirs.save_pretrained(str(tmp_path / "theirs"), create_model_card=False)  # as the newest version lays it out
    assert (tmp_path / "theirs" / "modules.json").exists()
    newest = bw.load(tmp_path / "theirs", precision="float32")
    np.testing.assert_allclose([found.value for found in newest.classify(pairs)], expected, atol=1e-5)
    numbers = zip(TEXTS, expected.tolist(), strict=True)
    rows = [{"text": "the dog", "pair": text, "label": number} for text, number in numbers]
    figures = bw.evaluate(newest, rows, pair_column="pair", quiet=True)
    assert figures["mean_absolute_error"] < 1e-5


def test_functions_and_modules_of_cross_encoders_that_are_refused(tmp_path: Path) -> None:
    path = cross_encoder(tmp_path / "three", 3, sentence_transformers={"activation_fn": IDENTITY})
    assert sum(bw.load(path).classify(("the dog", TEXTS[0])).scores.values()) == pytest.approx(1)
    for number, (labels, named) in enumerate(((1, "mine.Softplus"), (1, "torch.nn.ReLU"), (2, SIGMOID))):
        path = cross_encoder(tmp_path / str(number), labels, sentence_transformers={"activation_fn": named})
        with pytest.raises(UserError, match=f"the scores go through '{named}'; read are of"):
            bw.load(path)
    path = cross_encoder(tmp_path / "prompt", 1)
    settings = {"model_type": "CrossEncoder", "prompts": {"q": "find: "}, "default_prompt_name": "q"}
    (path / "config_sentence_transformers.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="default_prompt_name is 'q', and a CrossEncoder's prompts are not read"):
        bw.load(path)
    (path / "config_sentence_transformers.json").write_text(json.dumps({**settings, "default_prompt_name": None}))
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": ""} for kind in ("Transformer", "Dense")]
    (path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UserError, match="the modules are Transformer, Dense; of a CrossEncoder Transformer alone"):
        bw.load(path)


def test_a_classifier_ranks_by_the_label_of_pairs_that_go_together(tmp_path: Path) -> None:
    names = {"id2label": {0: "contradiction", 1: "entailment"}, "label2id": {"contradiction": 0, "entailment": 1}}
    model = bw.load(cross_encoder(tmp_path / "two", 2, **names), precision="float32")
    found = model.rerank("the dog", TEXTS)
    classified = model.classify([("the dog", text) for text in TEXTS])
    assert [hit.score for hit in found] == sorted(
        (of_text.scores["entailment"] for of_text in classified), reverse=True
    )
    other = model.rerank("the dog", TEXTS, label="contradiction")
    assert [hit.index for hit in other] == [hit.index for hit in found][::-1]
    with pytest.raises(UserError, match=r"label='x': the model's labels are contradiction, entailment"):
        model.rerank("the dog", TEXTS, label="x")
    unknown = bw.load(cross_encoder(tmp_path / "three", 2, id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1}))
    with pytest.raises(UserError, match="has the labels a, b; label says which of them"):
        unknown.rerank("the dog", TEXTS)


def test_a_model_of_single_texts_is_refused(pretrained: Path, tmp_path: Path) -> None:
    rows = [{"text": text, "label": "long" if len(text) > 12 else "short"} for text in TEXTS] * 4
    bw.finetune("classify", pretrained, rows, out=tmp_path / "single", steps=2, quiet=True)
    with pytest.raises(UserError, match="fine-tuned on single texts, and reranking reads pairs"):
        bw.load(tmp_path / "single").rerank("the dog", TEXTS)
    with pytest.raises(UserError, match="needs a model fine-tuned for it"):
        bw.load(pretrained).rerank("the dog", TEXTS)
