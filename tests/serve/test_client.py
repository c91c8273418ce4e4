"""`bw.Client` gives what the Predictor gives: results, warnings and errors; and it comes back where it is sent away."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import numpy as np
import pytest
from starlette.testclient import TestClient

import bothways as bw
from bothways.client import calls
from bothways.serve.app import make_app
from tests.serve.conftest import served_predictor
from tests.serve.serving import in_thread
from tests.serve.test_verbs import CASES


def remote(client: TestClient, model: str | None) -> bw.Client:
    return bw.Client("http://test", model, transport=client._transport, retries=0)


def equal(found: Any, expected: Any) -> bool:
    if isinstance(expected, np.ndarray):
        return bool(found.dtype == expected.dtype and np.array_equal(found, expected))
    return bool(found == expected)


@pytest.mark.parametrize(("verb", "model", "fields"), CASES)
def test_methods_give_the_predictors_results(client: TestClient, verb: str, model: str, fields: dict[str, Any]) -> None:
    expected = getattr(served_predictor(model), verb)(**fields)
    assert equal(getattr(remote(client, model), verb)(**fields), expected)


def test_awaited_methods_give_the_same(client: TestClient) -> None:
    async def ask() -> None:
        transport = httpx2.ASGITransport(make_app(client.service))  # type: ignore[arg-type]
        for verb, model, fields in CASES:
            async with bw.AsyncClient("http://test", model, transport=transport, retries=0) as asking:
                found = await getattr(asking, verb)(**fields)
                assert equal(found, getattr(served_predictor(model), verb)(**fields)), verb
        async with bw.AsyncClient("http://test", "causal", transport=transport) as asking:
            pieces = [piece async for piece in asking.stream("the dog", max_tokens=6)]
            assert "".join(pieces) == served_predictor("causal").generate("the dog", max_tokens=6)
            assert [model["id"] for model in await asking.models()] == list(client.service.models)

    in_thread(lambda: asyncio.run(ask()))


def test_streams_long_lists_and_pages(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    right = served_predictor("causal").generate("the dog", max_tokens=6)
    assert "".join(remote(client, "causal").stream("the dog", max_tokens=6)) == right
    with pytest.raises(bw.UserError, match="prompt 1 is empty"):
        list(remote(client, "causal").stream(""))
    monkeypatch.setattr(calls, "TEXTS_IN_A_REQUEST", 2)
    texts = ["the dog", "a cat", "not in the house", "red", "blue"]
    assert remote(client, "classify").classify(texts) == served_predictor("classify").classify(texts)
    assert np.array_equal(remote(client, "similar").embed(texts), served_predictor("similar").embed(texts))
    assert remote(client, "classify").explain("the dog").html().startswith("<!doctype html>")
    assert remote(client, None).tag("the dog") == served_predictor("tag").tag("the dog")


def test_warnings_and_errors_are_the_predictors(client: TestClient) -> None:
    long = "dog " * 600
    with pytest.warns(bw.TruncationWarning, match="1 of 1 texts are longer") as given:
        remote(client, "similar").embed([long])
    assert [warning.filename for warning in given] == [__file__]
    for ask in (lambda m: m.fill("the dog"), lambda m: m.fill("[MASK]", top_k=0), lambda m: m.fill(5)):
        messages = []
        for model in (served_predictor("pretrained"), remote(client, "pretrained")):
            with pytest.raises(bw.UserError) as raised:
                ask(model)
            messages.append(str(raised.value))
        assert messages[0] == messages[1]
    with pytest.raises(bw.UserError, match="tag cannot classify; it can tag"):
        remote(client, "tag").classify("the dog")


class Answers(httpx2.BaseTransport):
    """A server that gives these replies, one after the other."""

    def __init__(self, *replies: httpx2.Response | Exception) -> None:
        self.replies = list(replies)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


def refusal(status: int, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, json={"error": {"type": "busy", "message": "full"}}, headers=headers)


def test_it_asks_again_after_the_time_that_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    good = httpx2.Response(200, json={"result": [], "warnings": []})
    transport = Answers(refusal(429, **{"retry-after": "7"}), httpx2.ConnectError("refused"), refusal(503), good)
    assert bw.Client("http://test", "tag", transport=transport).tag("the dog") == []
    assert slept == [7.25, 0.5, 1.0]
    transport = Answers(*(refusal(429) for _ in range(3)))
    with pytest.raises(bw.ServerError, match="full") as raised:
        bw.Client("http://test", "tag", transport=transport, retries=2).tag("the dog")
    assert (raised.value.status, raised.value.kind) == (429, "busy")
    transport = Answers(httpx2.Response(502, text="<html>"))
    with pytest.raises(bw.ServerError, match="not in Bothways' words"):
        bw.Client("http://test", "tag", transport=transport).tag("the dog")
    with pytest.raises(bw.ServerError, match="refused"):
        bw.Client("http://test", "tag", transport=Answers(httpx2.ConnectError("refused")), retries=0).tag("the dog")


def test_a_stream_that_ends_early_is_no_whole_text_and_a_refused_key_is_said() -> None:
    piece, end = b'data: {"text": " the"}\n\n', b'event: done\ndata: {"result": " the", "warnings": []}\n\n'
    failed = b'event: error\ndata: {"error": {"type": "failed", "message": "it broke"}}\n\n'

    def pieces(*replies: httpx2.Response | Exception) -> Any:
        return bw.Client("http://test", "causal", transport=Answers(*replies)).stream("the dog")

    assert list(pieces(httpx2.Response(200, content=piece + end))) == [" the"]
    for content, message in ((piece, "before the text did"), (piece + failed, "it broke")):
        found = pieces(httpx2.Response(200, content=content))
        assert next(found) == " the"
        with pytest.raises(bw.ServerError, match=message):
            next(found)
    with pytest.raises(bw.ServerError, match=r"http://test.* refused"):
        next(pieces(httpx2.ConnectError("refused")))
    with pytest.raises(bw.ServerError, match="full") as raised:
        bw.Client("http://test", transport=Answers(refusal(401))).models()
    assert raised.value.status == 401


def test_it_has_the_methods_of_a_predictor() -> None:
    import inspect

    local = {"predict", "hidden_states"}  # of files and of tensors
    shared = {name for name in vars(bw.Predictor) if not name.startswith("_")} - local
    for name in shared:
        mine = inspect.signature(getattr(bw.Predictor, name)).parameters
        for kind in (bw.Client, bw.AsyncClient):
            theirs = inspect.signature(getattr(kind, name)).parameters
            assert [str(p.name) for p in mine.values() if p.name != "on_progress"] == list(theirs), name
