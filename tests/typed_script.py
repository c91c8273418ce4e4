"""A user's script: mypy checks it with the package (`make lint`), strictly. It is never run.

Where a line is wrong on purpose, mypy must say so, as it complains of an ignored error that is none.
"""

from __future__ import annotations

from typing import Any, assert_type

import bothways as bw
from bothways.baselines.results import ClassifierResult, LanguageModelResult

ROWS = [{"text": "no light", "label": "hardware"}]


def right() -> None:
    tokenizer = bw.train_tokenizer(texts=["a text"], vocab_size=100, quiet=True)
    assert_type(tokenizer, bw.Tokenizer)
    store = bw.prepare("texts/", tokenizer, "store", validation=0.1, text_column="body")
    assert_type(store, bw.TokenStore)
    assert_type(bw.pretrain(store, "run", size="mini", steps=300), bw.TrainResult)
    bw.pretrain("store", "run", bw.PretrainOptions(steps=300), quiet=True)
    model = bw.load("run")
    assert_type(model, bw.Predictor)
    result = bw.finetune("classify", model, ROWS, ROWS, "tickets", steps=5, lr=3e-4, label_column="label")
    assert_type(result, bw.FinetuneResult)
    assert_type(result.metrics, dict[str, Any] | None)
    bw.finetune("tag", "run", "train.conll", out="entities", options={"steps": 5}, scheme="BIO")
    assert_type(bw.evaluate("tickets", "test.csv", text_column="body"), dict[str, Any])
    assert_type(bw.compare("classify", "run", ROWS, ROWS, "out", steps=5).results, list[ClassifierResult])
    assert_type(bw.compare("lm", store, "lm", order=4).results, list[LanguageModelResult])
    one_and_many(bw.load("tickets"), ["no light", "no sound"])


def one_and_many(model: bw.Predictor, texts: list[str]) -> None:
    assert_type(model.tag("no light"), list[bw.Entity])
    assert_type(model.tag(texts), list[list[bw.Entity]])
    assert_type(model.similar("light", texts), list[bw.Match])
    assert_type(model.similar(["light", "sound"], texts), list[list[bw.Match]])
    assert_type(model.rerank("light", texts), list[bw.Ranked])
    assert_type(model.rerank(["light", "sound"], texts), list[list[bw.Ranked]])
    assert_type(model.fill("no [MASK]"), list[list[bw.Fill]])
    assert_type(model.answer("what?", "a light"), bw.Answer)
    assert_type(model.answer(["what?"], "a light"), list[bw.Answer])
    assert_type(model.score("no light"), bw.TextScore)


def wrong() -> None:
    bw.pretrain("store", "run", step=3)  # type: ignore[call-arg]
    bw.pretrain("store", "run", steps="3")  # type: ignore[arg-type]
    bw.finetune("classify", "run", [], out="out", stepz=5)  # type: ignore[call-arg]
    bw.train_tokenizer("texts/", vocab_size="8192")  # type: ignore[arg-type]
    bw.prepare("texts/", "vocabulary", "store", documents="line")  # type: ignore[arg-type]
    bw.evaluate("tickets", "test.csv", step=3)  # type: ignore[call-arg]
    bw.compare("lm", "store", "out", stepz=5)  # type: ignore[call-overload]
    bw.pretrian("store", "run")  # type: ignore[attr-defined]
