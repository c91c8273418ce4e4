"""Texts in the order of a cross-encoder, as sentence-transformers has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import BertConfig, BertForSequenceClassification

import bothways as bw
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
