"""Our own routes answer as the Predictor's methods do, bit for bit, one or many, alone or in company."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import bothways as bw
from bothways.serve.asking import plain
from bothways.serve.schema import TextPair, VerbRequest
from bothways.serve.verb_routes import PLAIN_VERBS
from tests.serve.conftest import served_predictor

A, B = "the red dog [MASK] in the house", "a small cat [MASK]"
PAIRS = [("the dog", "a cat sleeps"), ("not", "in the old house")]
LOGITS = "the dog runs in the old house and a red bird eats"

# verb, model → requests: the same fields as the method has
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("classify", "classify", {"texts": A}),
    ("classify", "classify", {"texts": [A, B, LOGITS]}),
    ("classify", "pairs", {"texts": PAIRS}),
    ("tag", "tag", {"texts": [A, B]}),
    ("answer", "answer", {"question": "the dog?", "context": LOGITS}),
    ("answer", "answer", {"question": ["the dog?", "not"], "context": LOGITS, "no_answer": True}),
    ("choose", "choose", {"text": [A, B], "choices": ["runs", "eats", "not in the house"]}),
    ("embed", "similar", {"texts": [A, B, LOGITS]}),
    ("embed", "pretrained", {"texts": A, "normalize": False}),
    ("similar", "similar", {"query": "the dog", "texts": [A, B, LOGITS], "top_k": 2}),
    ("rerank", "pairs", {"query": "the dog", "texts": [A, B, LOGITS], "label": "tea"}),
    ("fill", "pretrained", {"text": [A, B], "top_k": 3}),
    ("next_sentence", "pretrained", {"a": "the dog", "b": [A, B]}),
    ("generate", "causal", {"prompt": ["the dog", "a cat"], "max_tokens": 7, "seed": 3}),
    ("generate", "causal", {"prompt": "the dog", "max_tokens": 5, "samples": 2}),
    ("score", "causal", {"text": [A, B], "next": "dog"}),
    ("suggest", "causal", {"prompt": "the dog", "top_k": 2}),
    ("chat", "instruct", {"messages": [{"role": "user", "content": "the dog"}], "max_tokens": 6}),
]


def as_json(value: Any) -> Any:
    """What of a call's parameters, or of its result, is on the wire."""
    if isinstance(value, tuple):
        return {"text": value[0], "pair": value[1]}
    return [as_json(entry) for entry in value] if isinstance(value, list) else value


def expected(verb: str, model: str, fields: dict[str, Any]) -> Any:
    return json.loads(json.dumps(plain(getattr(served_predictor(model), verb)(**fields))).replace("Infinity", "null"))


def post(client: TestClient, verb: str, model: str, fields: dict[str, Any]) -> Any:
    body = {"model": model, **{name: as_json(value) for name, value in fields.items()}}
    reply = client.post(f"/v1/{verb}", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()["result"]


@pytest.mark.parametrize(("verb", "model", "fields"), CASES)
def test_a_route_answers_as_the_method(client: TestClient, verb: str, model: str, fields: dict[str, Any]) -> None:
    assert post(client, verb, model, fields) == expected(verb, model, fields)


def test_many_at_once_are_answered_as_alone(client: TestClient) -> None:
    known = [expected(*case) for case in CASES]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda case: post(client, *case), CASES * 8))
    for case, result, right in zip(CASES * 8, found, known * 8, strict=True):
        assert result == right, case[0]
    text = client.get("/metrics").text
    assert 'bothways_requests_total{model="classify",verb="classify"}' in text
    assert 'bothways_queue_length{model="tag"} 0.0' in text


def test_vectors_as_base64_have_the_same_bits(client: TestClient) -> None:
    found = client.post("/v1/embed", json={"model": "similar", "texts": [A, B], "encoding_format": "base64"}).json()
    vectors = np.frombuffer(base64.b64decode(found["result"]["float32"]), "<f4").reshape(found["result"]["shape"])
    assert np.array_equal(vectors, served_predictor("similar").embed([A, B]))


def test_what_is_truncated_is_refused_unless_asked_for(client: TestClient) -> None:
    body: dict[str, Any] = {"model": "similar", "texts": ["the dog", "dog " * 600]}
    refused = client.post("/v1/embed", json=body)
    assert refused.status_code == 422
    assert refused.json()["error"]["type"] == "truncated"
    assert "text 2 is 602 tokens long, and the model reads 512" in refused.json()["error"]["message"]
    reply = client.post("/v1/embed", json={**body, "truncate": True}).json()
    assert reply["truncated"]
    assert "1 of 2 texts are longer than 512 tokens" in reply["warnings"][0]["message"]
    with pytest.warns(bw.TruncationWarning):
        assert reply["result"] == served_predictor("similar").embed(body["texts"]).tolist()


def events(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((lines.get("event", ""), json.loads(lines["data"])))
    return found


def test_generate_and_chat_are_streamed(client: TestClient) -> None:
    body = {"model": "causal", "prompt": "the dog", "max_tokens": 9, "stream": True, "alternatives": 2}
    *pieces, (name, last) = events(client.post("/v1/generate", json=body).text)
    assert name == "done"
    right = served_predictor("causal").generate("the dog", max_tokens=9)
    assert "".join(piece["text"] for _, piece in pieces) == last["result"] == right
    assert all(len(piece["alternatives"]) == 2 and 0 < piece["probability"] <= 1 for _, piece in pieces)
    body = {"model": "instruct", "messages": "the dog", "max_tokens": 5, "stream": True}
    *pieces, (name, last) = events(client.post("/v1/chat", json=body).text)
    assert last["result"] == served_predictor("instruct").chat("the dog", max_tokens=5)
    refused = client.post("/v1/generate", json={"model": "causal", "prompt": "", "stream": True})
    assert refused.status_code == 422
    assert "prompt 1 is empty" in refused.json()["error"]["message"]


def test_tokenize_says_where_tokens_stand(client: TestClient) -> None:
    found = client.post("/v1/tokenize", json={"model": "similar", "texts": "the dog"}).json()["result"]
    assert found["tokens"] == ["[CLS]", "the", "dog", "[SEP]"]
    assert found["offsets"] == [[0, 0], [0, 3], [4, 7], [0, 0]]


def test_explain_gives_what_a_page_is_made_of(client: TestClient) -> None:
    found = client.post("/v1/explain", json={"model": "classify", "text": "the dog"}).json()["result"]
    assert found["tokens"] == served_predictor("classify").explain("the dog").data["tokens"]


# The model here that each route's example is for, by the end of its path; `similar` for all others.
EXAMPLE_MODELS = {
    "classify": "classify", "predict": "classify", "tag": "tag", "answer": "answer", "choose": "choose",
    "chat": "instruct", "completions": "causal", "generate": "causal", "suggest": "causal", "fill": "pretrained",
    "score": "causal", "next_sentence": "pretrained", "rerank": "nli", "explain": "pretrained", "": "nli",
}  # fmt: skip


def test_every_route_has_an_example_that_works(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    asked = 0
    for path, methods in document["paths"].items():
        if "post" not in methods:
            assert methods["get"]["summary"]
            continue
        schema = methods["post"]["requestBody"]["content"]["application/json"]["schema"]
        name = "instruct" if "chat" in path else EXAMPLE_MODELS.get(path.rpartition("/")[2], "similar")
        url = path.replace("{name}", "classify").replace("{task}", "text-classification")
        for part in schema.get("anyOf", [schema]):
            properties = document["components"]["schemas"][part["$ref"].rpartition("/")[2]]["properties"]
            body = {field: value["examples"][0] for field, value in properties.items() if "examples" in value}
            if "model" in properties:
                body["model"] = name
            reply = client.post(url, json=body, headers={"x-model": name})
            assert reply.status_code == 200, (path, body, reply.text)
            asked += 1
    assert asked > 25


def test_requests_have_the_parameters_of_the_methods() -> None:
    import inspect

    for verb, (kind, _) in PLAIN_VERBS.items():
        if verb in ("tokenize", "explain"):
            continue
        parameters = set(inspect.signature(getattr(bw.Predictor, verb)).parameters) - {"self", "on_progress"}
        assert kind.model_fields.keys() - VerbRequest.model_fields.keys() == parameters, verb
    assert TextPair(text="a", pair="b").pair == "b"
