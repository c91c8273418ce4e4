"""One rule for every method of a predictor: a text has a result, many texts a list, in whatever they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

import bothways as bw
from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint
from bothways.errors import UserError
from bothways.model.families import head_builder
from bothways.model.task_heads import EmbeddingHead
from tests.helpers import Run, tiny_config, tiny_tokenizer

Ask = Callable[[bw.Predictor, Any], Any]
A, B = "the red dog [MASK] in the house", "a small cat [MASK]"


class OnlyArrow:
    """A table or column of a library that nobody knows: nothing but Arrow's stream."""

    def __init__(self, values: pa.Table | pa.ChunkedArray) -> None:
        self._values = values

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._values.__arrow_c_stream__(requested_schema)


def trained_on(task: str, **options: Any) -> dict[str, Any]:
    """What bothways.json says of a model that was fine-tuned here."""
    labels = {"classify": ["gas", "tea"], "tag": ["B-x", "I-x", "O"]}.get(task, [])
    scheme = {"scheme": "BIO"} if task == "tag" else {}
    return {
        "task": task,
        **({"labels": labels} if labels else {}),
        **scheme,
        "options": options,
        "provenance": {"bothways": "0"},
    }


@cache
def model_of(kind: str) -> bw.Predictor:
    heads: dict[str, Any] = {
        "pretrained": head_builder("pretraining"),
        "causal": head_builder("causal-LM"),
        "classify": head_builder("sequence", 2),
        "pairs": head_builder("sequence", 2),
        "elsewhere": head_builder("sequence", 2),
        "tag": head_builder("token", 3),
        "answer": head_builder("span"),
        "choose": head_builder("choice"),
        "similar": lambda encoder: EmbeddingHead("mean", True),
    }
    metadata = {
        "classify": trained_on("classify"),
        "pairs": trained_on("classify", text_column="a", pair_column="b"),
        "elsewhere": {"task": "classify", "labels": ["gas", "tea"]},
    }
    known = {name: trained_on(name) for name in ("tag", "answer", "choose", "similar")} | metadata
    model = new_model(tiny_config(initializer_range=0.3, is_decoder=kind == "causal"), heads[kind], seed=1)
    return bw.Predictor(Checkpoint(model.eval(), tiny_tokenizer(), known.get(kind, {})), "cpu", "float32")


METHODS: dict[str, tuple[str, Ask]] = {
    "classify": ("classify", lambda model, texts: model.classify(texts)),
    "tag": ("tag", lambda model, texts: model.tag(texts)),
    "answer": ("answer", lambda model, texts: model.answer(texts, "the red dog sleeps")),
    "answer, contexts": ("answer", lambda model, texts: model.answer("the dog?", texts)),
    "choose": ("choose", lambda model, texts: model.choose(texts, ["runs", "eats"])),
    "embed": ("pretrained", lambda model, texts: model.embed(texts)),
    "similar": ("similar", lambda model, texts: model.similar(texts, ["the dog", "a cat", "not"], top_k=2)),
    "hidden_states": ("pretrained", lambda model, texts: model.hidden_states(texts)),
    "fill": ("pretrained", lambda model, texts: model.fill(texts, top_k=2)),
    "next_sentence": ("pretrained", lambda model, texts: model.next_sentence(texts, "a cat sleeps")),
    "next_sentence, second": ("pretrained", lambda model, texts: model.next_sentence("a cat sleeps", texts)),
    "generate": ("causal", lambda model, texts: model.generate(texts, greedy=True, max_tokens=4)),
    "score": ("causal", lambda model, texts: model.score(texts, next="dog", top_k=2)),
    "score, masked": ("pretrained", lambda model, texts: model.score(texts, top_k=2)),
    "suggest": ("causal", lambda model, texts: model.suggest(texts, top_k=2)),
    "explain": ("classify", lambda model, texts: model.explain(texts)),
}


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, np.ndarray | torch.Tensor):
        return bool(found.shape == expected.shape and np.allclose(found, expected, atol=1e-5))
    if isinstance(expected, int | float):
        return bool(found == pytest.approx(expected, abs=1e-5))
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    if hasattr(expected, "to_dict"):
        return same(list(flat(found.to_dict())), list(flat(expected.to_dict())))
    if isinstance(expected, str):
        return bool(found == expected)
    return bool(found.data["tokens"] == expected.data["tokens"])


def flat(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from flat(item)
    else:
        yield 0.0 if value is None else value


@pytest.mark.parametrize("name", METHODS)
def test_a_text_has_a_result_and_many_texts_a_list(name: str) -> None:
    kind, ask = METHODS[name]
    model = model_of(kind)
    expected = [ask(model, A), ask(model, B)]
    frame = pd.DataFrame({"n": [1, 2], "text": [A, B]})
    ways: dict[str, Any] = {
        "list": [A, B],
        "array": np.array([A, B]),
        "generator": (text for text in (A, B)),
        "series": frame["text"],
        "frame": frame,
        "polars": pl.DataFrame({"text": [A, B], "n": [1, 2]}),
        "polars series": pl.Series([A, B]),
        "arrow": pa.table({"text": [A, B], "n": [1, 2]}),
        "arrow column": pa.chunked_array([[A], [B]]),
        "arrow array": pa.array([A, B]),
        "only arrow": OnlyArrow(pa.table({"text": [A, B]})),
        "only arrow's column": OnlyArrow(pa.chunked_array([[A, B]])),
    }
    for way, texts in ways.items():
        found = ask(model, texts)
        assert len(found) == 2, way
        assert same(list(found), expected), way
    assert same(list(ask(model, [A])), expected[:1])
    assert len(ask(model, [])) == 0
    nonsense: list[Any] = [
        5,
        None,
        b"bytes",
        {"text": A},
        {A},
        [["a", "b"]],
        [A, None],
        [A, float("nan")],
        ("a", "b", "c"),
    ]
    for texts in [*nonsense, [("a", 1)], np.array("a"), [{"text": A}], frame[["n"]], pd.Series([A, pd.NA])]:
        with pytest.raises(UserError) as error:
            ask(model, texts)
        assert len(str(error.value)) < 300


def test_what_has_no_text_is_refused_with_the_cure() -> None:
    model = model_of("classify")
    for texts, message in (
        (pd.DataFrame({"body": ["a"], "n": [1]}), r"its columns are body, n; .* df\['body'\] say"),
        ({"text": ["a"]}, r"expected texts, found a dict; give a list of texts, its \['text'\] say"),
        (b"caf\xc3\xa9", r"found bytes, .*decode\('utf-8'\)"),
        ({"a", "b"}, "a set, which has no order; give a list"),
        (("a", "b", "c"), "the text: expected a string or a pair of strings, .* several texts are a list"),
        ([["a", "b"]], r"text 1: expected .*; a pair is a tuple, \(a, b\)"),
        ([{"text": "a"}], r"text 1: expected .*; give the texts of rows, \[row\['text'\] for row in rows\] say"),
        (["a", None], "text 2 is missing"),
        (pd.DataFrame({"text": ["a", None]}), "text 2 is missing"),
        (pd.DataFrame([["a", "b"]], columns=["text", "text"]), "the table has 2 columns 'text'"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            model.classify(texts)


def test_pairs_only_where_the_model_saw_them() -> None:
    pair = ("the dog", "a cat")
    pretrained, single, pairs, elsewhere = map(model_of, ("pretrained", "classify", "pairs", "elsewhere"))
    assert pretrained.embed(pair).shape == (32,)
    assert pretrained.hidden_states([pair])[0].shape == (7, 32)
    assert isinstance(elsewhere.classify(pair), bw.Classification)
    assert isinstance(pairs.classify(pair), bw.Classification)
    asks: list[Callable[[], Any]] = [
        lambda: single.classify(pair), lambda: single.classify(["a", pair]), lambda: single.explain(pair),
        lambda: single.hidden_states(pair), lambda: model_of("tag").explain(pair),
    ]  # fmt: skip
    for ask in asks:
        with pytest.raises(
            UserError,
            match=r"on single texts and never saw a pair; give each text by itself, in Python \['the",
        ):
            ask()
    for verb, ask in (
        ("tag", lambda: model_of("tag").tag(pair)),
        ("similar", lambda: model_of("similar").similar(pair, ["a"])),
        ("embed", lambda: model_of("similar").embed(pair)),
        ("generate", lambda: model_of("causal").generate(pair)),
        ("score", lambda: pretrained.score(pair)),
        ("answer", lambda: model_of("answer").answer(pair, "a")),
    ):
        with pytest.raises(
            UserError,
            match=rf"^{verb} reads single texts, found a pair; give each text by itself, in Python \['the",
        ):
            ask()
    with pytest.raises(
        UserError, match=r"fine-tuned on pairs and never saw a single text, which text 2 is; give pairs: "
    ):
        pairs.classify([pair, "a"])


def test_a_table_of_pairs_is_read_by_the_columns_of_the_fine_tuning() -> None:
    pairs = model_of("pairs")
    expected = pairs.classify([("the dog", "a cat"), ("not", "red")])
    table = {"b": ["a cat", "red"], "a": ["the dog", "not"]}
    assert same(pairs.classify(pd.DataFrame(table)), expected)
    assert same(pairs.classify(OnlyArrow(pa.table(table))), expected)
    with pytest.raises(UserError, match="a table without a column 'b'; its columns are a"):
        pairs.classify(pd.DataFrame({"a": ["the dog"]}))


def test_a_pair_column_is_refused_by_a_model_of_single_texts() -> None:
    with pytest.raises(UserError, match="never saw a pair; leave out pair_column"):
        model_of("classify").task("classify", {"pair_column": "b"})
    assert model_of("elsewhere").task("classify", {"pair_column": "b"}).columns(labelled=False).keys() == {"text", "b"}


def test_many_questions_and_many_contexts() -> None:
    model = model_of("answer")
    questions, contexts = ["the dog?", "a cat?"], ["the red dog runs", "a small cat sleeps in the house"]
    expected = [model.answer(question, context) for question, context in zip(questions, contexts, strict=True)]
    assert same(model.answer(questions, contexts), expected)
    assert same(model.answer(questions[:1], contexts[0]), expected[:1])
    with pytest.raises(UserError, match="2 questions, but 3 contexts; give one context for all, or as many"):
        model.answer(questions, ["a", "b", "c"])
    probabilities = model_of("pretrained").next_sentence(questions, contexts)
    assert probabilities == [
        model_of("pretrained").next_sentence(a, b) for a, b in zip(questions, contexts, strict=True)
    ]


def test_choices_of_all_texts_or_of_each() -> None:
    model, texts, own = model_of("choose"), ["the dog", "a cat"], [["runs", "eats"], ["red", "blue", "green"]]
    found = model.choose(texts, own)
    assert [len(choice.probabilities) for choice in found] == [2, 3]
    assert same(found[1], model.choose(texts[1], own[1]))
    assert same(model.choose(texts, own[0])[0], found[0])
    for choices, message in ((own[:1], "2 texts, but 1 lists of choices"), ("runs", "expected a list of choices")):
        with pytest.raises(UserError, match=message):
            model.choose(texts, choices)


def test_every_query_is_answered() -> None:
    model, texts = model_of("similar"), ["the red dog", "a small cat", "not the house"]
    found = model.similar(["the dog", "a cat"], texts, top_k=3)
    for query, matches in zip(["the dog", "a cat"], found, strict=True):
        cosines = model.embed(texts) @ model.embed(query)
        assert [match.index for match in matches] == np.argsort(-cosines).tolist()
        assert [match.cosine for match in matches] == pytest.approx(sorted(cosines, reverse=True), abs=1e-5)


def test_rows_are_tables_of_any_library() -> None:
    model = model_of("classify")
    expected = model.classify(["the dog", "a cat"])
    table = {"text": ["the dog", "a cat"], "score": [1.5, None], "when": pd.to_datetime(["2026-01-01", None])}
    frame = pd.DataFrame(table)
    for rows in (frame, pl.from_pandas(frame), pa.Table.from_pandas(frame), OnlyArrow(pa.Table.from_pandas(frame)),
                 frame.to_dict("records"), pa.Table.from_pandas(frame).to_batches()[0]):  # fmt: skip
        assert same(model.predict(rows), expected)
    with pytest.raises(UserError, match="row 2: column 'text' is missing"):
        model.predict(pd.DataFrame({"text": ["a", None]}))
    with pytest.raises(UserError, match=r"found a dict of columns; give .*: \[dict\(zip\(table, row\)\) for row in"):
        model.predict({"text": ["a"]})
    with pytest.raises(UserError, match=r"found a dict of columns; give .*: \[row\]"):
        model.predict({"text": "a"})


def test_a_predictor_shows_itself() -> None:
    shown = repr(model_of("classify"))
    parameters = sum(parameter.numel() for parameter in model_of("classify").model.parameters()) / 1e6
    assert shown.startswith("Predictor(")
    for part in (f"{parameters:,.1f} M parameters", "2 layers of 32", "classify (gas, tea)", "cpu", "float32", "BERT"):
        assert part in shown
    assert len(shown) < 200
    assert "<td>classify (gas, tea)</td>" in model_of("classify")._repr_html_()
    explanation = model_of("classify").explain(A)
    assert repr(explanation).startswith(f"Explanation({A!r} by ")
    assert len(repr(explanation)) < 200


def test_the_command_line_refuses_pairs_that_the_model_never_saw(tmp_path: Path, bothways: Run) -> None:
    for kind in ("classify", "elsewhere"):
        save_checkpoint(model_of(kind).checkpoint, tmp_path / kind)
    table = tmp_path / "pairs.jsonl"
    table.write_text('{"text": "the dog", "other": "a cat", "label": "gas"}\n')
    pair = ("--pair-column", "other")
    for arguments in (
        ("explain", "the dog", "--pair", "a cat", "--out", tmp_path / "page.html"),
        ("classify", "--in", table, *pair),
        ("classify", "--in", table, *pair, "--out", tmp_path / "out.jsonl"),
        ("predict", table, *pair),
        ("evaluate", table, *pair),
    ):
        verb, *rest = arguments
        code, _, err = bothways(verb, tmp_path / "classify", *rest)
        assert code == 2, arguments
        assert "was fine-tuned on single texts and never saw a pair; " in err
        code, _, err = bothways(verb, tmp_path / "elsewhere", *rest)
        assert code == 0, err
