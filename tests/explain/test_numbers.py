"""Every number of a page is the model's own, to 1e-3: against eager attention, `transformers` and the embeddings."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from transformers import AutoTokenizer, BertForQuestionAnswering, BertModel

import bothways as bw
from bothways.batch import PackedBatch, pack_sequences
from bothways.checkpoint.hugging_face import Checkpoint, new_model
from bothways.errors import UserError
from bothways.explain.answers import ShownAnswer, shown_answer
from bothways.explain.page_data import MAX_SUMMED_WEIGHTS, compress_weights
from bothways.explain.predictions import decision_of, integrated_gradients
from bothways.explain.record import gradient_weighted, record, rollout
from bothways.explain.tokens import tokens_of_text
from bothways.model.families import head_builder
from bothways.model.heads import HeadKind
from bothways.pages.arrays import compress_array, compress_shares, decompress_array
from bothways.predictor import Predictor
from tests.helpers import hugging_face_config, tiny_config, tiny_tokenizer

A, B = "The bear ate the honey because it was hungry", "It was sweet."
SENTENCES = ("Please buy an apple and an orange", "Apple unveiled the new phone")


@pytest.fixture(scope="module")
def real(minilm: Path) -> Predictor:
    return bw.load(minilm)


def predictor(kind: HeadKind, labels: int = 0, **config: Any) -> Predictor:
    names = [f"label-{n}" for n in range(labels)]
    model = new_model(tiny_config(initializer_range=0.2, **config), head_builder(kind, labels), seed=1).eval()
    return Predictor(Checkpoint(model, tiny_tokenizer(), {"labels": names} if labels else {}))


@given(arrays(np.float32, array_shapes(max_dims=3, max_side=9), elements=st.floats(-60, 60, width=32)))
def test_arrays_come_back_within_the_tolerance(values: np.ndarray) -> None:
    assert decompress_array(compress_array(values)).shape == values.shape
    np.testing.assert_allclose(decompress_array(compress_array(values)), values, atol=1e-3)
    shares = torch.from_numpy(values).softmax(-1).numpy()
    np.testing.assert_allclose(decompress_array(compress_shares(shares)), shares, atol=1e-3)
    np.testing.assert_allclose(decompress_array(compress_shares(shares)).sum(-1), 1, atol=1e-3)


def test_attention_and_states_are_those_of_transformers(real: Predictor, minilm: Path) -> None:
    data = real.explain((A, B), others=SENTENCES, word="apple").data
    theirs = BertModel.from_pretrained(minilm, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    inputs = tokenizer(A, B, return_tensors="pt")
    with torch.inference_mode():
        output = theirs(**inputs, output_attentions=True, output_hidden_states=True)
    assert [one["id"] for one in data["tokens"]] == inputs["input_ids"][0].tolist()
    assert [one["segment"] for one in data["tokens"]] == inputs["token_type_ids"][0].tolist()
    run = data["runs"][0]
    for ours, expected in zip(run["weights"], output.attentions, strict=True):
        np.testing.assert_allclose(decompress_array(ours), expected[0].numpy(), atol=1e-3)
    for scores, weights in zip(run["scores"], run["weights"], strict=True):
        softmax = torch.from_numpy(decompress_array(scores)).softmax(-1)
        np.testing.assert_allclose(softmax.numpy(), decompress_array(weights), atol=2e-3)
    size = real.config.head_size
    for q, k, scores in zip(run["queries"], run["keys"], run["scores"], strict=True):
        products = np.einsum("aid,ajd->aij", decompress_array(q), decompress_array(k)) / size**0.5
        np.testing.assert_allclose(products, decompress_array(scores), atol=1e-2)
    batch, _, _ = tokens_of_text(real.tokenizer, [real.tokenizer.encode(A), real.tokenizer.encode(B)])
    with torch.inference_mode():
        states = record(real.model.encoder, batch).states
    for ours, expected in zip(states, output.hidden_states, strict=True):
        torch.testing.assert_close(ours, expected[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(states[-1], real.hidden_states([(A, B)])[0], atol=1e-4, rtol=1e-4)


def test_sentences_and_neighbours_are_the_cosines_of_the_models_vectors(real: Predictor) -> None:
    view = real.explain(SENTENCES[0], others=SENTENCES[1:], word="apple", anchors=("fruit", "company")).data[
        "embeddings"
    ]
    vectors = real.embed(list(SENTENCES))
    np.testing.assert_allclose(view["sentence_cosines"], vectors @ vectors.T, atol=1e-5)
    states = [real.hidden_states([one])[0] for one in SENTENCES]
    at = [
        next(n for n, one in enumerate(view["tokens"]) if one["word"] == "apple" and one["sentence"] == s)
        for s in (0, 1)
    ]
    own = [states[0][1 + at[0]], states[1][1 + at[1] - sum(one["sentence"] == 0 for one in view["tokens"])]]
    cosine = float(torch.cosine_similarity(*own, dim=0))
    assert decompress_array(view["cosines"])[-1, at[0], at[1]] == pytest.approx(cosine, abs=1e-3)
    anchor = real.hidden_states(["fruit"])[0][1]
    expected = float(torch.cosine_similarity(own[0], anchor, dim=0))
    assert decompress_array(view["paths"][0]["cosines"])[-1, 0] == pytest.approx(expected, abs=1e-3)
    assert [path["sentence"] for path in view["paths"]] == [0, 1]
    fruit, company = (decompress_array(path["cosines"])[-1] for path in view["paths"])
    assert fruit[0] > company[0], "an apple to buy is nearer to fruit than one that unveils phones"
    table = real.model.encoder.embeddings.token.weight
    for one in view["neighbours"]:
        row = table[real.tokenizer.id(one["token"])]
        for token, value in one["near"]:
            near = float(torch.cosine_similarity(row, table[real.tokenizer.id(token)], dim=0).detach())
            assert value == pytest.approx(near, abs=1e-5)


def test_under_the_causal_mask_nothing_looks_ahead_and_rows_sum_to_one(real: Predictor) -> None:
    runs = real.explain(A).data["runs"]
    assert [run["causal"] for run in runs] == [False, True]
    for run in runs:
        for packed_weights in run["weights"]:
            weights = decompress_array(packed_weights)
            np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-3)
            assert bool(np.triu(weights, 1).max() < 1e-6) == run["causal"]


def test_positions_are_the_models_table(real: Predictor) -> None:
    view = real.explain(A).data["positions"]
    table = real.model.encoder.embeddings.position.weight.detach().numpy()
    np.testing.assert_allclose(decompress_array(view["table"]), table[:, :64], atol=1e-3)
    rows = table[view["similarity_rows"]]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(decompress_array(view["similarity"]), unit @ unit.T, atol=1e-3)
    assert view["rows"] == 512


def test_rollout_is_the_product_of_mixed_layers() -> None:
    weights = [torch.rand(2, 4, 4).softmax(-1) for _ in range(3)]
    expected = np.eye(4)
    for one in weights:
        expected = (0.5 * one.mean(0).numpy() + 0.5 * np.eye(4)) @ expected
    np.testing.assert_allclose(rollout(weights)[-1].numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(rollout(weights)[-1].sum(-1).numpy(), 1, atol=1e-6)


HEADS = {
    "fills": predictor("pretraining"),
    "next": predictor("causal-LM", is_decoder=True),
    "classes": predictor("sequence", 3),
    "tags": predictor("token", 4),
    "span": predictor("span"),
}
TEXT = "the old dog [MASK] in the house"


@pytest.mark.parametrize("name", HEADS)
def test_each_head_tells_what_it_predicts_and_its_attribution_adds_up(name: str) -> None:
    model = HEADS[name]
    data = model.explain(TEXT).data
    view = data["predictions"]
    assert name in view
    pieces = [model.tokenizer.encode(TEXT)]
    batch, _, _ = tokens_of_text(model.tokenizer, pieces)
    decision = decision_of(model, batch, shown_answer(model, batch, TEXT, pieces))
    assert decision is not None
    scores = integrated_gradients(model, batch, decision)
    np.testing.assert_allclose(view["attribution"]["scores"], scores.numpy(), atol=1e-6)
    special = {model.tokenizer.cls_id, model.tokenizer.sep_id}
    nothing = [id if id in special else model.tokenizer.mask_id for id in batch.input_ids.tolist()]
    masked = replace(batch, input_ids=torch.tensor(nothing))
    hidden = [record(model.model.encoder, one).hidden[-1] for one in (batch, masked)]
    change = float((decision.score(hidden[0]) - decision.score(hidden[1])).detach())
    assert float(scores.sum()) == pytest.approx(change, abs=0.05 + 0.02 * abs(change)), "completeness"
    assert data["runs"][0]["gradient"] is not None


def test_fills_and_next_words_are_the_predictors_own() -> None:
    view = HEADS["fills"].explain(TEXT).data["predictions"]
    (fill,) = view["fills"]
    expected = HEADS["fills"].fill(TEXT, top_k=8)[0]
    assert fill["position"] == 4
    assert [token for token, _ in fill["alternatives"]] == [one.token for one in expected]
    assert [p for _, p in fill["alternatives"]] == pytest.approx([one.probability for one in expected], abs=1e-5)
    lens = view["lens"][-1][4]
    assert lens[0][1] == pytest.approx(expected[0].probability, abs=1e-5)
    view = HEADS["next"].explain("the old dog").data["predictions"]
    drawn = HEADS["next"].generate("the old dog", samples=3, max_tokens=12)
    assert [text.removeprefix("… ") for text in view["samples"]] == [text.lstrip() for text in drawn]
    following = HEADS["next"].score("the old dog", top_k=8).alternatives
    assert [p for _, p in view["next"]] == pytest.approx([one.probability for one in following], abs=1e-5)


CONTEXTS = (
    "the old dog eats in the red house",
    "a cat sleeps",
    "not the bird and the small cat. the big blue bird sleeps on the old house and not in the red house",
)
READINGS = {
    "plain": {},
    "short answers": {"options": {"max_answer_length": 2}},
    "may be none": {"no_answer": True},
    "nearly always none": {"no_answer": True, "threshold": 9.0},
    "nearly never none": {"no_answer": True, "threshold": -9.0, "options": {"max_answer_length": 1}},
    "windows": {"sequence_length": 14, "options": {"overlap": 3}},
    "windows and none": {"sequence_length": 14, "no_answer": True, "options": {"overlap": 3, "question_column": "q"}},
}


def answer_of(model: Predictor, *text: str) -> tuple[ShownAnswer, PackedBatch, list[str]]:
    """The answer that a page shows, the page's batch, and the word that each of its tokens belongs to."""
    pieces = [model.tokenizer.encode(part) for part in text]
    batch, tokens, words = tokens_of_text(model.tokenizer, pieces)
    answer = shown_answer(model, batch, text[0] if len(text) == 1 else (text[0], text[1]), pieces)
    assert answer is not None
    return answer, batch, [f"{one['word']} {words[one['word']]}" for one in tokens]


@pytest.mark.parametrize("name", READINGS)
def test_the_answer_on_a_page_is_the_predictors(name: str) -> None:
    state = {"task": "answer", "no_answer": False, **READINGS[name]}
    for seed, context in itertools.product(range(5), CONTEXTS):
        model = new_model(tiny_config(initializer_range=0.3), head_builder("span"), seed=seed).eval()
        model = Predictor(Checkpoint(model, tiny_tokenizer(), state))
        shown, batch, words = answer_of(model, "the dog?", context)
        own = model.answer("the dog?", context)
        assert (shown.text, shown.probability) == (own.text, own.probability), (seed, context)
        inside = dict.fromkeys(words[shown.first : shown.last + 1])
        assert not own.text or " ".join(one.split()[1] for one in inside).replace(" .", ".") == own.text
        assert ("windows of up to 14 tokens" in shown.note) == (batch.num_tokens > state.get("sequence_length", 512))
    data = model.explain(("the dog?", context)).data
    span, notes = data["predictions"]["span"], data["notes"]
    assert (span["answer"], span["probability"]) == (own.text, own.probability)
    assert data["predictions"]["attribution"]["of"] == ("the answer" if own.text else "no answer")
    assert (shown.note in notes) == bool(shown.note)


def test_what_is_attributed_is_the_answers_score() -> None:
    for no_answer, threshold in ((False, 0.0), (True, 99.0)):
        model = predictor("span")
        model.checkpoint.metadata |= {"task": "answer", "no_answer": no_answer, "threshold": threshold}
        answer, batch, _ = answer_of(model, "the dog?", CONTEXTS[0])
        assert bool(answer.text) != no_answer
        decision = decision_of(model, batch, answer)
        assert decision is not None
        with torch.no_grad():
            hidden = record(model.model.encoder, batch).hidden[-1]
            scores = model.model.head(hidden, batch)
            assert float(decision.score(hidden)) == float(scores[answer.first, 0] + scores[answer.last, 1])
        assert (answer.first == 0) == no_answer


def test_a_span_model_from_elsewhere_may_find_no_answer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = BertForQuestionAnswering(hugging_face_config(tiny_config(), initializer_range=0.5)).eval()
    theirs.save_pretrained(tmp_path)
    tiny_tokenizer().save(tmp_path)
    foreign = bw.load(tmp_path)
    taskless = Predictor(Checkpoint(foreign.model, foreign.tokenizer, {}))
    for context in CONTEXTS:
        own = foreign.answer("the dog?", context)
        for model in (foreign, taskless):
            shown, _, _ = answer_of(model, "the dog?", context)
            assert (shown.text, shown.probability) == (own.text, own.probability)


def test_a_span_of_one_text_lies_in_it() -> None:
    for seed in range(5):
        model = new_model(tiny_config(initializer_range=0.3), head_builder("span"), seed=seed).eval()
        answer, batch, words = answer_of(Predictor(Checkpoint(model, tiny_tokenizer(), {"no_answer": False})), TEXT)
        assert answer.text in TEXT
        assert answer.text.split()[0] == words[answer.first].split()[1]
        assert 0 < answer.first <= answer.last < batch.num_tokens - 1
        assert answer.note == ""


def test_what_a_page_leaves_out_is_said(real: Predictor) -> None:
    assert real.explain(A).data["notes"] == []
    notes = " ".join(real.explain("the dog runs " * 80).data["notes"])
    assert "scores before the softmax" in notes
    assert "cosines of tokens" in notes
    several = real.explain("the dog runs " * 70, others=("an apple",), word="Apple", anchors=("fruit",)).data
    assert several["embeddings"]["word"] == "apple"
    assert [path["sentence"] for path in several["embeddings"]["paths"]] == [1]


def test_gradient_weighted_attention_is_weights_times_their_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient by finite differences: one weight of the first layer is changed by hand."""
    model = HEADS["classes"]
    batch, _, _ = tokens_of_text(model.tokenizer, [model.tokenizer.encode(TEXT)])
    decision = decision_of(model, batch)
    assert decision is not None
    seen = record(model.model.encoder, batch)
    decision.score(seen.hidden[-1]).backward()
    products = seen.weights[0].detach() * seen.weights[0].grad
    torch.testing.assert_close(gradient_weighted(seen.weights)[0], products.clamp(min=0).mean(0))
    head, row, column = (int(n) for n in np.unravel_index(int(products.abs().argmax()), products.shape))
    softmax, calls, step = torch.Tensor.softmax, [0], 1e-2

    def changed(scores: torch.Tensor, dim: int) -> torch.Tensor:
        weights = softmax(scores, dim)
        calls[0] += 1
        if calls[0] == 1:  # of the first layer
            weights[head, row, column] += step
        return weights

    with torch.inference_mode():
        before = float(decision.score(record(model.model.encoder, batch).hidden[-1]))
        monkeypatch.setattr(torch.Tensor, "softmax", changed)
        after = float(decision.score(record(model.model.encoder, batch).hidden[-1]))
    slope = float(seen.weights[0].grad[head, row, column])
    assert (after - before) / step == pytest.approx(slope, rel=0.1)
    model.model.zero_grad(set_to_none=True)


def test_the_fast_path_is_untouched(real: Predictor) -> None:
    before = real.embed([A])
    real.explain(A)
    assert np.array_equal(before, real.embed([A]))
    assert all(parameter.grad is None for parameter in real.model.parameters())


def test_a_page_holds_its_data_safely_and_needs_nothing_else(real: Predictor, tmp_path: Path) -> None:
    text = "<script>alert(1)</script> & “quotes”"
    page = real.explain(text).write(tmp_path / "page.html").read_text()
    (content,) = re.findall(r'<script type="application/json" id=data>(.*?)</script>', page, re.DOTALL)
    assert json.loads(content)["text"]["a"] == text
    assert "<script>alert" not in page
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)
    assert 'id="data"' not in content


def test_a_long_text_stays_small_and_exact(real: Predictor) -> None:
    text = "the dog runs in the old house and sleeps " * 56
    data = real.explain(text).data
    assert len(data["tokens"]) > 500
    assert len(json.dumps(data)) < 30e6
    batch, _, _ = tokens_of_text(real.tokenizer, [real.tokenizer.encode(text)])
    with torch.inference_mode():
        weights = record(real.model.encoder, batch).weights
    shown = decompress_array(data["runs"][0]["weights"][3])
    np.testing.assert_allclose(shown, weights[3].numpy(), atol=1e-3)
    np.testing.assert_allclose(shown.sum(-1), 1, atol=1e-3)
    assert data["notes"]


def test_the_largest_page_is_under_thirty_megabytes(real: Predictor) -> None:
    """24 layers of 16 heads on 512 tokens, from what the real model's layers take on real words."""
    words = np.random.default_rng(0).permutation(np.arange(2000, 6000))[:510]
    ids = np.array([real.tokenizer.cls_id, *words, real.tokenizer.sep_id])
    with torch.inference_mode():
        weights = record(real.model.encoder, pack_sequences([(ids, np.zeros_like(ids))])).weights
    packed_layers = compress_weights(weights, MAX_SUMMED_WEIGHTS + 1)
    np.testing.assert_allclose(decompress_array(packed_layers[2]), weights[2].numpy(), atol=1e-3)
    a_head = sum(len(one["data"]) for one in packed_layers) / (len(weights) * len(weights[0]))
    assert 24 * 16 * a_head < 30e6


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "the text is empty"),
        ("dog " * 600, {}, "602 tokens long; the position table has 512 rows"),
        (A, {"word": "zebra"}, "word='zebra': in none of the sentences"),
        (A, {"others": ("dog " * 600,)}, "longer than the position table"),
        ("see \U0001f995 here", {"word": "\U0001f600"}, "the vocabulary does not know it"),
        (A, {"word": "bear", "anchors": ("\U0001f9ff",)}, "the vocabulary does not know it"),
        ("I don't", {"word": "don't"}, "expected one word"),
        (A, {"others": (None,)}, "expected a string"),
    ],
)
def test_what_cannot_be_shown_is_an_error(real: Predictor, text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        real.explain(text, **options)


def test_pictures_are_drawn(real: Predictor, tmp_path: Path) -> None:
    explanation = real.explain(A)
    for name in ("a.png", "a.svg"):
        assert explanation.write(tmp_path / name, layer=2).stat().st_size > 5000
    assert "honey" in (tmp_path / "a.svg").read_text()
    with pytest.raises(UserError, match="layer=9: the model has layers 1 to 6"):
        explanation.write(tmp_path / "b.png", layer=9)
    with pytest.raises(UserError, match=r"accepted: \.html, \.png, \.svg"):
        explanation.write(tmp_path / "b.pdf")
