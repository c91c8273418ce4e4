"""Limits and failures: each has its status, one shape, a request id, and leaves the others alone."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from bothways.errors import UserError
from bothways.hardware import memory_errors
from bothways.inference.engine import Forward
from bothways.serve import gate
from bothways.serve.app import SPANS, make_app
from bothways.serve.inquiries import Alone, Inquiry
from bothways.serve.keys import read_keys
from bothways.serve.limits import Limits
from bothways.serve.metrics import Metrics
from bothways.serve.models import model_for, named_models
from bothways.serve.scheduler import ModelQueue
from bothways.serve.service import Service
from tests.serve.conftest import Serve, open_service
from tests.serve.serving import in_thread

JSON = {"content-type": "application/json"}


def error(reply: httpx2.Response, status: int, kind: str) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    found: dict[str, Any] = reply.json()["error"]
    assert found["type"] == kind
    assert found["request_id"] == reply.headers["x-request-id"]
    return found


def test_each_mistake_has_its_status_and_says_what_it_is(client: TestClient) -> None:
    def post(verb: str, **body: Any) -> httpx2.Response:
        return client.post(f"/v1/{verb}", json=body)

    assert "can" in error(post("tag", model="classify", texts="a"), 400, "wrong_model")["message"]
    found = error(post("classify", model="clasify", texts="a"), 404, "model_not_found")
    assert "did you mean 'classify'?" in found["message"]
    assert error(post("classify", model="classify", texts=[1]), 422, "invalid")["param"].startswith("texts")
    assert error(post("classify", model="classify"), 422, "invalid")["param"] == "texts"
    assert error(post("classify", model="classify", texts="a", top=1), 422, "invalid")["param"] == "top"
    assert "no [MASK] in 'a'" in error(post("fill", model="pretrained", text="a"), 422, "invalid")["message"]
    assert "top_k=0" in error(post("fill", model="pretrained", text="[MASK]", top_k=0), 422, "invalid")["message"]
    error(post("embed", texts="a"), 422, "invalid")  # several models can
    assert client.post("/v1/tag", json={"texts": "the dog"}).status_code == 200  # only one can
    error(client.post("/v1/nothing", json={}), 404, "not_found")
    error(client.get("/v1/classify"), 405, "method_not_allowed")
    for body in (b"{", b'{"texts": ' + b"[" * 100_000, b"\xff\xfe", b"", b"null"):
        reply = client.post("/v1/classify", content=body, headers={"content-type": "application/json"})
        assert reply.status_code in (400, 422), body[:20]
        assert reply.json()["error"]["message"]
    surrogate = client.post("/v1/classify", content=rb'{"model": "classify", "texts": "\ud800"}')
    error(surrogate, 400, "malformed")
    long = {"x-request-timeout": "nan"}
    error(client.post("/v1/classify", json={"model": "classify", "texts": "a"}, headers=long), 422, "invalid")


def test_options_that_the_engine_refuses_are_named(client: TestClient) -> None:
    for path, body in (
        ("/v1/completions", {"model": "causal", "prompt": "the dog", "temperature": 1e9}),
        ("/v1/chat/completions", {"model": "instruct", "messages": [{"role": "user", "content": "a"}], "top_p": 5}),
        ("/v1/generate", {"model": "causal", "prompt": "the dog", "max_tokens": 0, "stream": True}),
    ):
        found = error(client.post(path, json=body), 422, "invalid")
        assert found["message"].partition("=")[0] in body, "the message begins with the option"


def test_the_way_through_fastapi_answers_the_same(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SPANS, "true")
    other = TestClient(make_app(client.service), raise_server_exceptions=False)  # type: ignore[arg-type]
    bodies = (
        b'{"model": "classify", "texts": "the dog"}',
        b'{"model": "classify", "texts": [5]}',
        b"{",
        b"[]",
        b"null",
    )
    for body in bodies:
        pair = [asked.post("/v1/classify", content=body, headers=JSON) for asked in (client, other)]
        assert pair[0].status_code == pair[1].status_code, body
        found = [reply.json() for reply in pair]
        for content in found:
            for name in ("request_id", "message"):
                content.get("error", {}).pop(name, None)
        assert found[0] == found[1]
    texts = client.post("/v1/classify", content=bodies[0], headers={"content-type": "text/plain"})
    assert "expected application/json" in error(texts, 400, "malformed")["message"]


def test_sizes_are_limited(serve: Serve) -> None:
    client = serve("classify", max_body=3000, max_texts=3, max_characters=500)
    assert "4 texts" in error(client.post("/v1/classify", json={"texts": ["a"] * 4}), 413, "too_large")["message"]
    assert (
        "501 characters" in error(client.post("/v1/classify", json={"texts": "a" * 501}), 413, "too_large")["message"]
    )
    error(client.post("/v1/classify", content=b" " * 3001), 413, "too_large")
    chooser = serve("choose", max_texts=5)
    many = {"text": ["a"] * 3, "choices": ["b", "c"]}
    assert "3 × 2 texts" in error(chooser.post("/v1/choose", json=many), 413, "too_large")["message"]
    assert chooser.post("/v1/choose", json={**many, "text": ["a"] * 2}).status_code == 200

    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 100

    error(client.post("/v1/classify", content=chunks()), 413, "too_large")


def test_a_request_that_comes_too_slowly_gets_408(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "BODY_SECONDS", 0.05)
    sent: list[Any] = []

    async def slow() -> None:
        parts = iter([{"type": "http.request", "body": b'{"texts"', "more_body": True}])

        async def receive() -> Any:
            if (part := next(parts, None)) is not None:
                return part
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/classify", "headers": [], "query_string": b""}
        await make_app(client.service)(scope, receive, send)  # type: ignore[arg-type]

    in_thread(lambda: asyncio.run(slow()))
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["error"]["type"] == "slow_body"


def test_request_ids_and_traces_come_back(client: TestClient) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    reply = client.get("/healthz", headers={"x-request-id": "mine-1", "traceparent": trace})
    assert (reply.headers["x-request-id"], reply.headers["traceparent"]) == ("mine-1", trace)
    assert len(client.get("/readyz", headers={"x-request-id": "a b"}).headers["x-request-id"]) == 32


def test_a_full_server_says_when_to_come_again(serve: Serve) -> None:
    client = serve("classify", max_requests=1)
    client.service.in_flight = 1
    reply = client.post("/v1/classify", json={"texts": "the dog"})
    error(reply, 429, "busy")
    assert 1 <= int(reply.headers["retry-after"]) <= 60
    client.service.in_flight = 0
    assert client.post("/v1/classify", json={"texts": "the dog"}).status_code == 200


def test_while_it_drains_nothing_is_accepted(serve: Serve) -> None:
    client = serve("classify")
    client.service.state = "draining"
    error(client.post("/v1/classify", json={"texts": "the dog"}), 503, "draining")
    error(client.get("/readyz"), 503, "draining")
    assert client.get("/healthz").status_code == 200


def test_while_it_loads_it_is_alive_and_nothing_more() -> None:
    client = TestClient(make_app(Service(Limits(), Metrics())))  # type: ignore[arg-type]
    assert client.get("/healthz").status_code == 200
    assert client.get("/").status_code == 200
    for reply in (client.get("/readyz"), client.get("/v1/models"), client.post("/v1/classify", json={"texts": "a"})):
        error(reply, 503, "loading")
        assert reply.headers["retry-after"] == "1"


def test_keys_are_asked_for(serve: Serve) -> None:
    client = serve("classify", keys={"anna": "k" * 20, "ben": "l" * 20})
    body = {"texts": "the dog"}
    error(client.post("/v1/classify", json=body), 401, "unauthorized")
    error(client.post("/v1/classify", json=body, headers={"authorization": f"Bearer {'m' * 20}"}), 401, "unauthorized")
    for headers in ({"authorization": f"Bearer {'l' * 20}"}, {"x-api-key": "k" * 20}):
        assert client.post("/v1/classify", json=body, headers=headers).status_code == 200
    assert client.get("/readyz").status_code == 200
    assert client.get("/").status_code == 200
    assert client.post("/", json={"inputs": "the dog"}).status_code == 401
    error(client.get("/metrics"), 401, "unauthorized")
    figures = client.get("/metrics", headers={"x-api-key": "k" * 20}).text
    assert 'bothways_replies_total{route="/v1/classify",status="200"} 2.0' in figures
    assert 'bothways_errors_total{kind="unauthorized"} 4.0' in figures


class Halt:
    """A forward pass that waits, so that others queue behind it."""

    def __init__(self, client: TestClient) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        service = client.service

        def question() -> Any:
            yield Alone(self._wait, 1)
            return None

        self.inquiry = Inquiry(next(iter(service.models)), "embed", question(), time.monotonic() + 60)
        service._pool.submit(service._advance, self.inquiry)
        assert self.begun.wait(20)

    def _wait(self) -> None:
        self.begun.set()
        assert self.go.wait(20)


def test_an_expired_request_gets_504_and_never_reaches_the_engine(serve: Serve) -> None:
    client = serve("classify")
    halt = Halt(client)
    ran: list[int] = []
    client.service.ran = lambda model, tokens, sequences, seconds: ran.append(tokens)
    body = {"texts": "the dog"}
    error(client.post("/v1/classify", json=body, headers={"x-request-timeout": "0.05"}), 504, "deadline")
    halt.go.set()
    assert client.post("/v1/classify", json={"texts": "the dog runs"}).status_code == 200
    assert ran == [1, 5]  # the halt and the second, not the first


def test_a_client_that_leaves_frees_its_work(serve: Serve) -> None:
    client = serve("classify")
    halt = Halt(client)
    app = make_app(client.service)

    async def leave() -> None:
        transport = httpx2.ASGITransport(app)  # type: ignore[arg-type]
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as asking:
            task = asyncio.ensure_future(asking.post("/v1/classify", json={"texts": "the dog"}))
            while not client.service.in_flight:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    in_thread(lambda: asyncio.run(leave()))
    assert client.service.in_flight == 0
    halt.go.set()


def test_a_request_that_fails_leaves_those_of_its_batch_alone(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve("classify")
    halt = Halt(client)
    run = Forward.run

    def fragile(forward: Forward) -> list[Any]:
        if any(len(sequence.input_ids) == 7 for sequence in forward.encoded):
            raise RuntimeError("a product went wrong")
        return run(forward)

    monkeypatch.setattr(Forward, "run", fragile)
    replies: dict[str, httpx2.Response] = {}
    texts = ["the dog", "the dog runs and eats", "a cat"]  # the second has 7 tokens with [CLS] and [SEP]

    def ask(text: str) -> None:
        replies[text] = client.post("/v1/classify", json={"texts": text})

    threads = [threading.Thread(target=ask, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    queue = client.service._scheduler.queues["classify"]
    until = time.monotonic() + 20
    while len(queue.inquiries) < 3 and time.monotonic() < until:
        threading.Event().wait(0.001)
    halt.go.set()
    for thread in threads:
        thread.join()
    assert [replies[text].status_code for text in texts] == [200, 500, 200]
    assert error(replies[texts[1]], 500, "failed")["message"] == "classify failed: RuntimeError"


@pytest.mark.parametrize("of_torch", [True, False])
def test_out_of_memory_halves_the_budget_and_is_tried_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, of_torch: bool
) -> None:
    client = serve("classify")
    run, sizes = Forward.run, []

    def small(forward: Forward) -> list[Any]:
        sizes.append(len(forward.encoded))
        if len(forward.encoded) > 2:
            with memory_errors(forward.device, "a batch"):
                raise MemoryError if not of_torch else RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return run(forward)

    monkeypatch.setattr(Forward, "run", small)
    budget = client.service._scheduler.budget
    reply = client.post("/v1/classify", json={"texts": ["the dog"] * 4})
    assert reply.status_code == 200
    assert sizes == [4, 2, 2]
    assert client.service._scheduler.budget == budget // 2


def test_a_crash_of_the_engine_is_answered_with_503(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve("classify")
    crashed = threading.Event()
    client.service.on_crash = crashed.set

    def crash(forward: Forward) -> list[Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Forward, "run", crash)
    error(client.post("/v1/classify", json={"texts": "the dog"}), 503, "stopped")
    assert crashed.wait(20)
    error(client.post("/v1/classify", json={"texts": "the dog"}), 503, "stopped")


def test_a_batch_is_of_one_key_within_the_budget_and_without_the_dead() -> None:
    class Sequence:
        def __init__(self, length: int) -> None:
            self.input_ids = [0] * length

    def inquiry(key: str, *lengths: int, seconds: float = 60) -> Inquiry:
        made = Inquiry("m", "embed", iter(()), time.monotonic() + seconds)  # type: ignore[arg-type]
        made.waiting = Forward(None, None, [Sequence(length) for length in lengths], None, (key,))  # type: ignore[arg-type]
        made.results = [None] * len(lengths)
        return made

    large, dead, other, small = inquiry("a", 5, 5, 5), inquiry("a", 1, seconds=-1), inquiry("b", 2), inquiry("a", 1)
    queue = ModelQueue()
    queue.inquiries.extend([large, dead, other, small])
    assert [(share.inquiry, share.start, share.end) for share in queue.take(12)] == [(large, 0, 2), (small, 0, 1)]
    assert [(share.inquiry, share.start, share.end) for share in queue.take(12)] == [(other, 0, 1)]
    assert [(share.inquiry, share.start, share.end) for share in queue.take(3)] == [
        (large, 2, 3)
    ]  # alone, however long
    assert queue.take(12) == []


def test_a_long_queue_is_run_as_a_table_is(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve("classify")
    scheduler = client.service._scheduler
    scheduler.budget, scheduler._at_once = 8, 4
    run, sizes = Forward.run, []

    def counted(forward: Forward) -> list[Any]:
        sizes.append(sum(len(sequence.input_ids) for sequence in forward.encoded))
        return run(forward)

    monkeypatch.setattr(Forward, "run", counted)
    assert client.post("/v1/classify", json={"texts": ["the dog"] * 11}).status_code == 200
    assert sizes == [32, 8, 4]  # of 44 tokens: four batches at once, then one by one


def test_what_is_wrong_at_the_start_is_said(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="max_characters=100: a text of so many characters does not fit"):
        Limits(max_body=50, max_characters=100)
    with pytest.raises(UserError, match="timeout=0: expected seconds"):
        Limits(timeout=0)
    assert named_models(["runs/a/model", "b"], ["c=d"]) == {"a": "runs/a/model", "b": "b", "c": "d"}
    with pytest.raises(UserError, match="two models are called 'a': a and x/a; name='NAME=MODEL' gives another"):
        named_models(["a", "x/a"], [])
    with pytest.raises(UserError, match="expected NAME=MODEL"):
        named_models([], ["c"])
    shipped: dict[str, Any] = {}
    monkeypatch.setattr("bothways.serve.models.shipped_models", lambda: shipped)
    with pytest.raises(UserError, match="no model is named, and the shipped models are not installed"):
        named_models([], [])
    shipped["mini"] = None
    assert named_models([], []) == {"mini": "mini"}
    keys = tmp_path / "keys"
    keys.write_text("")
    keys.chmod(0o600)
    with pytest.raises(UserError, match="no key in it"):
        read_keys(str(keys), {})
    keys.write_text("anna: " + "k" * 20)
    assert read_keys(str(keys), {})
    keys.chmod(0o644)
    with pytest.raises(UserError, match="can be read by everybody; chmod 600"):
        read_keys(str(keys), {})
    with pytest.raises(UserError, match=r"No such file"):
        read_keys(str(tmp_path / "none"), {})
    with pytest.raises(UserError, match="16 characters or more"):
        read_keys(None, {"BOTHWAYS_API_KEYS": "anna:short"})
    assert not read_keys(None, {})


def test_the_model_may_be_left_out_where_only_one_can_answer() -> None:
    service = open_service(("classify", "tag"))
    try:
        assert model_for(service.models, None, "tag").name == "tag"
    finally:
        service.close()


def test_the_log_has_no_texts_unless_asked_for(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "bothways.serve.access")
    client = serve("classify")
    client.post("/v1/classify", json={"texts": "the secret dog"}, headers={"x-request-id": "r1"})
    record = caplog.records[-1]
    assert (record.request_id, record.model, record.verb, record.status) == ("r1", "classify", "classify", 200)  # type: ignore[attr-defined]
    assert "secret" not in json.dumps(vars(record), default=str)
    TestClient(make_app(client.service, log_texts=True)).post("/v1/classify", json={"texts": "the secret dog"})  # type: ignore[arg-type]
    assert "secret" in caplog.records[-1].body  # type: ignore[attr-defined]
