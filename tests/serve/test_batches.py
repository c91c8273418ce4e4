"""Requests share batches: masks, scores, and texts in the making, which join and leave between steps."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from bothways.inference.engine import Forward
from bothways.inference.generation import Growth
from bothways.inference.kv_cache import TextCache
from bothways.serve.app import make_app
from tests.serve.conftest import Serve
from tests.serve.serving import in_thread
from tests.serve.test_calm import Halt
from tests.serve.test_verbs import expected, post

# verb, model → requests that may share a batch
TOGETHER: list[tuple[str, str, list[dict[str, Any]]]] = [
    ("fill", "pretrained", [{"text": "the [MASK] runs"}, {"text": ["[MASK] [MASK]", "a cat in the [MASK]"]}]),
    ("score", "pretrained", [{"text": "the dog runs"}, {"text": "a cat", "next": "eats"}]),
    ("score", "causal", [{"text": "the dog runs", "next": "not"}, {"text": ["a", "a red bird in the house"]}]),
    ("next_sentence", "pretrained", [{"a": "the dog", "b": "a cat"}, {"a": "not", "b": ["the dog runs", "a"]}]),
    ("suggest", "causal", [{"prompt": "the dog"}, {"prompt": "a red bird in the old", "top_k": 2}]),
    (
        "generate",
        "causal",
        [
            {"prompt": "the dog", "max_tokens": 9, "top_p": 0.9, "temperature": 1.4},
            {"prompt": ["a cat", "a red bird in the old house"], "max_tokens": 4, "samples": 2, "seed": 5},
        ],
    ),
    ("chat", "instruct", [{"messages": "the dog", "max_tokens": 6}, {"messages": "a red bird", "max_tokens": 3}]),
]


def wait_for(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < until
        threading.Event().wait(0.001)


@pytest.mark.parametrize(("verb", "model", "requests"), TOGETHER)
def test_requests_that_wait_share_a_batch_and_have_the_bits_of_each_alone(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, verb: str, model: str, requests: list[dict[str, Any]]
) -> None:
    client = serve(model)
    shared: list[int] = []
    for kind in (Forward, Growth):
        monkeypatch.setattr(kind, "run", counted(kind.run, lambda forward: shared.append(len(forward.encoded))))
    known = [expected(verb, model, fields) for fields in requests]
    alone, shared[:] = max(shared), []
    halt = Halt(client)
    queue = client.service._scheduler.queues[model]
    with ThreadPoolExecutor(len(requests)) as pool:
        found = [pool.submit(post, client, verb, model, fields) for fields in requests]
        wait_for(lambda: len(queue.inquiries) == len(requests))
        halt.go.set()
        assert [future.result() for future in found] == known
    assert max(shared) > alone, "a batch has sequences of more than one request"


def counted(run: Callable[[Any], Any], count: Callable[[Any], None]) -> Callable[[Any], Any]:
    def counting(forward: Any) -> Any:
        count(forward)
        return run(forward)

    return counting


def test_a_text_joins_those_in_the_making_and_leaves_them(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve("causal")
    long, short = ({"prompt": "the dog", "max_tokens": 14}, {"prompt": "a cat", "max_tokens": 3})
    known = [expected("generate", "causal", fields) for fields in (long, short)]
    steps: list[tuple[str, int]] = []
    queue = client.service._scheduler.queues["causal"]
    with ThreadPoolExecutor(1) as pool:
        joined: list[Any] = []

        def count(growth: Growth) -> None:
            steps.append((growth.key[1], len(growth.encoded)))
            if len(steps) == 4:
                joined.append(pool.submit(post, client, "generate", "causal", short))
                wait_for(lambda: len(queue.inquiries) == 1)

        monkeypatch.setattr(Growth, "run", counted(Growth.run, count))
        assert post(client, "generate", "causal", long) == known[0]
        assert joined[0].result() == known[1]
    one, two = ("tokens", 1), ("tokens", 2)
    assert steps == [("prompts", 1), one, one, one, ("prompts", 1), two, two, *[one] * 8]


def test_a_stream_whose_client_leaves_is_not_in_the_next_step(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve("causal")
    body = {"prompt": "the dog", "max_tokens": 12}
    known = expected("generate", "causal", body)
    steps: list[int] = []
    leave, app = threading.Event(), make_app(client.service)

    def count(growth: Growth) -> None:
        steps.append(len(growth.encoded))
        if len(steps) == 5:
            leave.set()
            wait_for(lambda: client.service.in_flight == 1)

    async def stream() -> None:
        parts = iter([{"type": "http.request", "body": json.dumps({**body, "stream": True}).encode()}])

        async def receive() -> Any:
            if (part := next(parts, None)) is not None:
                return part
            await asyncio.get_running_loop().run_in_executor(None, leave.wait)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            return None

        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/generate", "headers": headers, "query_string": b""}
        await app(scope, receive, send)  # type: ignore[arg-type]

    halt = Halt(client)
    monkeypatch.setattr(Growth, "run", counted(Growth.run, count))
    with ThreadPoolExecutor(2) as pool:
        stays = pool.submit(post, client, "generate", "causal", body)
        leaves = pool.submit(lambda: in_thread(lambda: asyncio.run(stream())))
        wait_for(lambda: len(client.service._scheduler.queues["causal"].inquiries) == 2)
        halt.go.set()
        assert stays.result() == known
        leaves.result()
    assert steps[:6] == [2] * 5 + [1], "the fifth step has begun when the client leaves"
    assert set(steps[6:]) <= {1}


def test_a_stream_of_a_byte_level_vocabulary_has_its_pieces_one_by_one() -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    from bothways.text.tokenizer import Tokenizer

    vocabulary = {piece: id for id, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c"])}
    backend = Backend(models.BPE(vocabulary, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = Tokenizer(backend)
    taken: list[int] = []
    pieces = tokenizer.text_pieces(taken.append(id) or id for id in (5, 6, 7))  # type: ignore[func-returns-value]
    assert (next(pieces), taken) == ("a", [5])
    assert (next(pieces), taken) == ("b", [5, 6])


def test_the_caches_of_a_whole_text_are_not_kept_while_nothing_is_asked(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, body = serve("causal"), {"prompt": "the dog", "max_tokens": 6}
    known, made = expected("generate", "causal", body), weakref.WeakSet[TextCache]()
    begin = TextCache.__init__

    def noting(cache: TextCache, *arguments: Any) -> None:
        begin(cache, *arguments)
        made.add(cache)

    monkeypatch.setattr(TextCache, "__init__", noting)
    monkeypatch.setattr(Growth, "run", counted(Growth.run, lambda growth: seen.append(len(made))))
    seen: list[int] = []
    assert post(client, "generate", "causal", body) == known
    assert seen[0] == 1
    gc.collect()
    wait_for(lambda: not made)


def test_a_request_has_a_bounded_number_of_texts_in_the_making(serve: Serve) -> None:
    client = serve("causal")
    for path, body, name in (
        ("suggest", {"prompt": "the dog", "top_k": 101}, "top_k"),
        ("generate", {"prompt": "the dog", "samples": 65}, "samples"),
        ("completions", {"model": "causal", "prompt": "the dog", "n": 65}, "n"),
    ):
        reply = client.post(f"/v1/{path}", json=body)
        assert (reply.status_code, reply.json()["error"]["message"].partition(":")[0]) == (422, name)
