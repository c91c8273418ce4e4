"""Every family learns the help desk's tasks from a small model pretrained for some steps, and what it then is is asked,
in bulk as well, explained, embedded, scored and exported as a BERT is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bothways as bw
from bothways.data.prepare import prepare
from bothways.model.config import SIZES
from bothways.text.tokenizer import Tokenizer
from tests.helpers import Run

pytestmark = pytest.mark.slow
HELPDESK = Path(bw.__file__).parent / "samples" / "helpdesk"
# XLM-RoBERTa and CamemBERT are RoBERTa by another name: the same parts, heads and names of tensors.
# BERT itself is what the other tests are of.
WIDTH = 64
WORDPIECE, BYTES = ("distilbert", "electra", "albert"), ("roberta", "mpnet", "modernbert", "gpt2")


def texts() -> list[str]:
    """What the help desk's customers and pages say."""
    tickets = (HELPDESK / "tickets-train.jsonl").read_text(encoding="utf-8").splitlines()
    pages = json.loads((HELPDESK / "questions-train.json").read_text(encoding="utf-8"))["data"]
    contexts = [paragraph["context"] for page in pages for paragraph in page["paragraphs"]]
    return [json.loads(line)["text"] for line in tickets] + contexts


@pytest.fixture(scope="module", params=[*WORDPIECE, *BYTES])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def pretrained_family(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the smallest size, here half as wide: what is asked below is learnt by it, in a third of the time."""
    folder = tmp_path_factory.mktemp(family)
    (folder / "texts.txt").write_text("\n\n".join(texts()), encoding="utf-8")
    learn: Callable[..., Tokenizer] = Tokenizer.train if family in WORDPIECE else Tokenizer.train_byte_bpe
    prepare([str(folder / "texts.txt")], learn(texts, 1500), folder / "store")
    options = bw.PretrainOptions(
        family=family,
        objective={"gpt2": "causal", "electra": "electra"}.get(family, "mlm"),
        size="tiny",
        steps=24,
        lr=2e-3,
        tokens_per_step=1024,
        sequence_length=64,
        max_position_embeddings=256,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", (2, WIDTH, 4 * WIDTH, 2))
        bw.pretrain(folder / "store", folder / "run", options)
    return folder / "run"


def test_tickets(family: str, pretrained_family: Path, tmp_path: Path, bothways: Run) -> None:
    options = bw.FinetuneOptions(epochs=5, sequence_length=48, lr=2e-3)
    train, test = HELPDESK / "tickets-train.jsonl", rows_of(HELPDESK / "tickets-test.jsonl")[:75]
    result = bw.finetune("classify", pretrained_family, train, test, tmp_path / "tickets", options)
    assert result.evaluation is not None
    chance = max(np.unique([row["label"] for row in test], return_counts=True)[1]) / len(test)
    assert result.evaluation.metrics["accuracy"] > chance + 0.1
    model = bw.load(tmp_path / "tickets")
    said = [row["text"] for row in test][:9]
    (tmp_path / "lines.txt").write_text("\n".join(said), encoding="utf-8")
    alone = [model.classify(text) for text in said]
    assert [found.label for found in model.classify(said)] == [found.label for found in alone]
    code, _, _ = bothways(
        "classify", tmp_path / "tickets", "--in", tmp_path / "lines.txt", "--out", tmp_path / "o.jsonl"
    )
    assert code == 0
    assert [row["predicted"] for row in rows_of(tmp_path / "o.jsonl")] == [found.label for found in alone]
    assert model.embed(said).shape == (9, WIDTH)
    page = model.explain(said[0]).data
    assert len(page["runs"]) == 2
    assert page["predictions"]
    if family in ("mpnet", "modernbert", "gpt2"):  # a bias, a window, the last token; the others' layers are BERT's
        code, _, errors = bothways("export", "onnx", tmp_path / "tickets", "--out", tmp_path / "onnx")
        assert code == 0, errors


def test_entities(family: str, pretrained_family: Path, tmp_path: Path) -> None:
    """Learnt by a family of each vocabulary; all others have the same way, and their heads' gradients are compared with
    transformers in tests/model, so that theirs is short."""
    learns = family in ("distilbert", "roberta")
    options = bw.FinetuneOptions(epochs=7 if learns else 1, sequence_length=48)
    train, test = (rows_of(HELPDESK / f"entities-{part}.jsonl") for part in ("train", "test"))
    run = tmp_path / "entities"
    result = bw.finetune("tag", pretrained_family, train[: None if learns else 64], test[:45], run, options)
    assert result.evaluation is not None
    assert result.evaluation.metrics["f1"] > (0.05 if learns else -1)  # which no NaN is
    text = test[0]["text"]
    for entity in bw.load(run).tag(text):
        assert text[entity.start : entity.end] == entity.text


def test_questions(family: str, pretrained_family: Path, tmp_path: Path) -> None:
    options = bw.FinetuneOptions(steps=12, sequence_length=160)
    train, test = squad_rows("train")[:120], squad_rows("test")[:40]
    result = bw.finetune("answer", pretrained_family, train, test, tmp_path / "help", options)
    assert result.evaluation is not None
    assert result.evaluation.metrics["f1"] > 0.15, "a third of the questions have no answer"
    context = "The engineer comes on Monday. A red light means that the line is dead."
    answer = bw.load(tmp_path / "help").answer("What does a red light mean?", context)
    assert answer.text == context[answer.start : answer.end]


def test_what_it_was_pretrained_for(family: str, pretrained_family: Path) -> None:
    if family == "gpt2":
        model = bw.load(pretrained_family)
        assert isinstance(model.generate("The router", max_tokens=5), str)
    else:
        model = bw.load(pretrained_family.parent / "run" / "generator" if family == "electra" else pretrained_family)
        mask = model.tokenizer.roles["mask"]
        (likely,) = model.fill(f"The {mask} is slow.")
        assert sum(fill.probability for fill in likely) > 0.01
    assert model.score("The router is slow.").log_probability < 0


def rows_of(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def squad_rows(part: str) -> list[dict[str, Any]]:
    pages = json.loads((HELPDESK / f"questions-{part}.json").read_text(encoding="utf-8"))["data"]
    return [
        {"question": asked["question"], "context": paragraph["context"], "answers": asked["answers"]}
        for page in pages
        for paragraph in page["paragraphs"]
        for asked in paragraph["qas"]
    ]
