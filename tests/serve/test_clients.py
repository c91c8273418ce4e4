"""Clients that others wrote get what the Predictor gives, through a socket on loopback."""

from __future__ import annotations

from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from huggingface_hub import InferenceClient

from bothways.serve.process import listen
from tests.serve.conftest import SERVED_KINDS, entailment_model, served_predictor

TEXTS = ["the red dog runs", "a small cat sleeps in the house"]


def hub(address: str, model: str) -> InferenceClient:
    return InferenceClient(model=f"{address}/models/{model}", token="none")


def test_hugging_face_fills_classifies_and_tags(address: str) -> None:
    text = "the [MASK] runs"
    (right,) = served_predictor("pretrained").fill(text, top_k=2)
    found = hub(address, "pretrained").fill_mask(text, top_k=2)
    assert [(fill.token_str, fill.score) for fill in found] == [(fill.token, fill.probability) for fill in right]
    assert found[0].sequence == text.replace("[MASK]", right[0].token)
    label = served_predictor("classify").classify(TEXTS[0])
    first, *_ = hub(address, "classify").text_classification(TEXTS[0])
    assert (first.label, first.score) == (label.label, label.probability)
    entities = served_predictor("tag").tag(TEXTS[1])
    for strategy in ("none", "simple", "first", "average", "max"):
        tagged = hub(address, "tag").token_classification(TEXTS[1], aggregation_strategy=strategy)
        assert [(e.word, e.start, e.end, e.score) for e in tagged] == [
            (e.text, e.start, e.end, e.probability) for e in entities
        ]


def test_hugging_face_answers_and_compares(address: str) -> None:
    right = served_predictor("answer").answer("the dog?", TEXTS[1], no_answer=False)
    found = hub(address, "answer").question_answering(question="the dog?", context=TEXTS[1])
    assert (found.answer, found.start, found.end, found.score) == (
        right.text,
        right.start,
        right.end,
        right.probability,
    )  # type: ignore[union-attr]
    vectors = hub(address, "similar").feature_extraction(TEXTS[0])
    assert np.array_equal(np.squeeze(vectors), served_predictor("similar").embed(TEXTS[0]))
    cosines = hub(address, "similar").sentence_similarity("the dog", TEXTS)
    ordered = sorted(served_predictor("similar").similar("the dog", TEXTS), key=lambda match: match.index)
    assert cosines == [match.cosine for match in ordered]


def test_hugging_face_zero_shot_is_that_of_transformers_pipeline(address: str) -> None:
    import torch

    model, labels, template = entailment_model(), ["dog", "cat", "house"], "the {} runs"
    pairs = [(TEXTS[0], template.format(label)) for label in labels]
    shares = [model.classify(pair).scores for pair in pairs]
    several = hub(address, "nli").zero_shot_classification(
        TEXTS[0], labels, hypothesis_template=template, multi_label=True
    )
    for found in several:
        scores = shares[labels.index(found.label)]
        right = scores["entailment"] / (scores["entailment"] + scores["contradiction"])
        assert found.score == pytest.approx(right, abs=1e-6)
    single = hub(address, "nli").zero_shot_classification(TEXTS[0], labels, hypothesis_template=template)
    from bothways.data.encoded import join_segments, pack_encoded
    from bothways.inference.engine import no_targets

    encoded = join_segments(model.tokenizer, pairs, 512)
    with torch.inference_mode():
        right = model.model(pack_encoded(encoded, no_targets))[:, 2].softmax(-1).tolist()
    assert {found.label: found.score for found in single} == pytest.approx(
        dict(zip(labels, right, strict=True)), abs=1e-5
    )


def test_hugging_face_generates(address: str) -> None:
    right = served_predictor("causal").generate("the dog", max_tokens=6, greedy=True)
    client = hub(address, "causal")
    assert client.text_generation("the dog", max_new_tokens=6) == right
    assert "".join(client.text_generation("the dog", max_new_tokens=6, stream=True)) == right


def test_openai(address: str) -> None:
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == [*SERVED_KINDS, "nli"]
    right = served_predictor("similar").embed(TEXTS)
    for options in ({}, {"encoding_format": "float"}):  # by default the package asks for base64
        made = client.embeddings.create(model="similar", input=TEXTS, **options)  # type: ignore[call-overload]
        assert np.array_equal(np.array([entry.embedding for entry in made.data], np.float32), right)
    ids = [
        served_predictor("similar").tokenizer.encode(text, special_tokens=False).input_ids.tolist() for text in TEXTS
    ]
    made = client.embeddings.create(model="similar", input=ids)
    assert np.array_equal(np.array([entry.embedding for entry in made.data], np.float32), right)
    with pytest.raises(openai.UnprocessableEntityError, match="was not trained to be cut shorter"):
        client.embeddings.create(model="similar", input=TEXTS, dimensions=8)
    with pytest.raises(openai.NotFoundError, match="no model 'nothing'"):
        client.embeddings.create(model="nothing", input=TEXTS)


def test_openai_completes_and_chats(address: str) -> None:
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    right = served_predictor("causal").generate("the dog", max_tokens=6, greedy=True)
    made = client.completions.create(model="causal", prompt="the dog", max_tokens=6, temperature=0)
    assert made.choices[0].text == right
    assert made.choices[0].finish_reason in ("stop", "length")
    pieces = client.completions.create(model="causal", prompt="the dog", max_tokens=6, temperature=0, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == right
    messages = [{"role": "user", "content": "the dog"}]
    right = served_predictor("instruct").chat(messages, max_tokens=5, greedy=True)
    asked = {"model": "instruct", "messages": messages, "max_tokens": 5, "temperature": 0}
    assert client.chat.completions.create(**asked).choices[0].message.content == right  # type: ignore[call-overload]
    pieces = client.chat.completions.create(**asked, stream=True)  # type: ignore[call-overload]
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == right
    with pytest.raises(openai.UnprocessableEntityError, match="tools"):
        client.chat.completions.create(**asked, tools=[{"type": "function", "function": {"name": "f"}}])  # type: ignore[call-overload]


def test_rerank_as_cohere_and_text_embeddings_inference(address: str) -> None:
    right = entailment_model().rerank("the dog", TEXTS)
    with httpx2.Client(base_url=address) as client:
        for route in ("/v1/rerank", "/v2/rerank", "/rerank"):
            body = {"model": "nli", "query": "the dog", "documents": TEXTS, "top_n": 1, "return_documents": True}
            (best,) = client.post(route, json=body).json()["results"]
            assert (best["index"], best["relevance_score"], best["document"]["text"]) == (
                right[0].index, right[0].score, right[0].text,
            )  # fmt: skip
        named = {"x-model": "nli"}
        found = client.post("/rerank", json={"query": "the dog", "texts": TEXTS, "return_text": True}, headers=named)
        assert found.json() == [{"index": r.index, "score": r.score, "text": r.text} for r in right]
        refused = client.post("/v2/rerank", json={"model": "tag", "query": "a", "documents": ["b"]})
        assert refused.status_code == 400
        assert refused.json()["message"].startswith("tag cannot rerank")


def test_text_embeddings_inference(address: str) -> None:
    with httpx2.Client(base_url=address, headers={"x-model": "similar"}) as client:
        vectors = client.post("/embed", json={"inputs": TEXTS}).json()
        assert np.array_equal(np.array(vectors, np.float32), served_predictor("similar").embed(TEXTS))
        tokens = client.post("/tokenize", json={"inputs": TEXTS[0], "add_special_tokens": False}).json()
        assert [token["text"] for token in tokens[0]] == TEXTS[0].split()
        assert client.get("/info").json()["max_input_length"] == 512
        assert client.get("/health").status_code == 200
        long = client.post("/embed", json={"inputs": "dog " * 600})
        assert (long.status_code, long.json()["error_type"]) == (422, "validation")
        right = served_predictor("classify").classify(TEXTS[0])
        found = client.post("/predict", json={"inputs": TEXTS[0]}, headers={"x-model": "classify"}).json()
        assert (found[0]["label"], found[0]["score"]) == (right.label, right.probability)


# What LangChain's and LlamaIndex's classes for text-embeddings-inference send: path, model here, body, what they need
# of the reply. Recorded from langchain-huggingface 1.2.3, with an `InferenceClient` of huggingface-hub 1.33 put into
# it, llama-index-embeddings-text-embeddings-inference 0.6.0 and llama-index-postprocessor-tei-rerank 0.6.0.
SENT = [
    ("", "similar", {"inputs": TEXTS}, "vectors"),
    ("/models/similar", None, {"inputs": TEXTS}, "vectors"),
    ("/embed", "similar", {"inputs": TEXTS, "truncate": True}, "vectors"),
    ("/rerank", "nli", {"query": "the dog", "texts": TEXTS}, "ranks"),
]


@pytest.mark.parametrize(("path", "model", "body", "needed"), SENT)
def test_what_langchain_and_llama_index_send(
    address: str, path: str, model: str | None, body: dict[str, Any], needed: str
) -> None:
    headers = {"accept": "*/*", "content-type": "application/json", "authorization": "Bearer none"}
    reply = httpx2.post(address + path, json=body, headers={**headers, **({"x-model": model} if model else {})})
    assert reply.status_code == 200, reply.text
    if needed == "vectors":
        assert np.array_equal(np.array(reply.json(), np.float32), served_predictor("similar").embed(TEXTS))
    else:
        right = entailment_model().rerank("the dog", TEXTS)
        assert reply.json() == [{"index": ranked.index, "score": ranked.score} for ranked in right]


def test_the_root_of_text_embeddings_inference_does_what_the_model_is_for(address: str) -> None:
    def post(model: str, **body: Any) -> httpx2.Response:
        return httpx2.post(address + "/", json=body, headers={"x-model": model})

    right = served_predictor("classify").classify(TEXTS[0])
    assert post("classify", inputs=TEXTS[0]).json()[0]["label"] == right.label
    assert [entry["index"] for entry in post("nli", query="the dog", texts=TEXTS).json()] == [
        ranked.index for ranked in entailment_model().rerank("the dog", TEXTS)
    ]
    refused = post("similar", inputs=[["a", "b"]])
    assert (refused.status_code, refused.json()["error_type"]) == (422, "validation")
    assert "no prompt of this name" in post("similar", inputs="a", prompt_name="nothing").json()["error"]
    assert post("similar", inputs="a", truncation_direction="Left").status_code == 422
    assert httpx2.post(address + "/", json={"inputs": "a"}).status_code == 422  # several models can


def test_a_server_that_listens_where_another_does_says_so(address: str) -> None:
    from bothways.errors import UserError

    port = int(address.rpartition(":")[2])
    with pytest.raises(UserError, match=f"port={port}: in use on 127.0.0.1"):
        listen("127.0.0.1", port)


def test_metrics_have_the_time_of_each_stage(address: str) -> None:
    with httpx2.Client(base_url=address) as client:
        client.post("/v1/embed", json={"model": "similar", "texts": TEXTS})
        text = client.get("/metrics").text
    found = {}
    for line in text.splitlines():
        if line.startswith("bothways_") and '_seconds_sum{model="similar",verb="embed"}' in line:
            name, value = line.split()
            found[name.partition("_seconds")[0].removeprefix("bothways_")] = float(value)
    assert found.keys() == {"queue", "tokenise", "infer", "total"}
    assert 0 < found["queue"] + found["tokenise"] + found["infer"] < found["total"]
