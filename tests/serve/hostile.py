"""Requests that are wrong in some way, and clients that behave badly."""

from __future__ import annotations

import asyncio
import json
import math
import random
from typing import Any

from tests.serve.load import HANG_SECONDS, Stage, limited, read_reply, within
from tests.serve.serving import TEXT

VERBS = (
    "classify", "tag", "answer", "embed", "similar", "fill", "generate", "chat", "score", "suggest", "next_sentence",
    "explain", "tokenize",
)  # fmt: skip


def hostile_request(drawn: random.Random) -> bytes:
    """One request that is wrong in some way: types, sizes, depths, encodings, headers, or not HTTP at all."""
    verb = drawn.choice(VERBS)
    fields: dict[str, Any] = {"model": drawn.choice(["classify", "tag", "nothing", None, 5, "../../etc/passwd"])}
    names = ("texts", "text", "question", "context", "prompt", "messages", "query", "top_k", "max_tokens", "choices")
    junk = (None, 0, -1, 1e308, True, "", "\0", "\u202e", "a" * 5000, [], {}, [[[]]], {"text": 5}, [None] * 50, 2**70)
    for name in drawn.sample(names, drawn.randint(0, 4)):
        fields[name] = drawn.choice((*junk, TEXT, [TEXT] * 3, "[MASK] " * 40))
    body = json.dumps(fields).encode()
    kind = drawn.randrange(9)
    if kind == 0:
        body = body[: drawn.randint(0, len(body))]
    elif kind == 1:
        body = b"[" * drawn.choice((100, 100_000))
    elif kind == 2:
        body = bytes(drawn.randrange(256) for _ in range(200))
    elif kind == 3:
        body = json.dumps({"model": "classify", "texts": "\ud800"}).encode()
    elif kind == 4:
        return bytes(drawn.randrange(256) for _ in range(drawn.randint(1, 400))) + b"\r\n\r\n"
    length = len(body) if drawn.random() < 0.9 else drawn.choice((0, 10**12, -1, len(body) // 2))
    path = drawn.choice(
        (f"/v1/{verb}", f"/v1/{verb}/", "/models/classify", "/embed", "/rerank", "/v1/embeddings", "/%00", "/")
    )
    method = drawn.choice(("POST",) * 8 + ("GET", "PUT"))
    extra = drawn.choice(
        ("", "", "x-request-timeout: -5\r\n", f"x-request-id: {'i' * 300}\r\n", "authorization: \xff\r\n")
    )
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{extra}"
    return f"{head}content-length: {length}\r\n\r\n".encode("latin-1") + body


async def send(port: int, request: bytes, drawn: random.Random) -> tuple[str, bytes]:
    """The status of the reply and its body; `closed` where the server ended the connection without one. Some requests
    come in two parts, some clients leave, and some close their side first."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        if drawn.random() < 0.1:
            writer.write(request[: len(request) // 2])
            await asyncio.sleep(0.01)
            request = request[len(request) // 2 :]
            if drawn.random() < 0.5:
                return "left", b""
        writer.write(request)
        if drawn.random() < 0.1:
            writer.write_eof()
        elif drawn.random() < 0.1:
            return "left", b""
        return await asyncio.wait_for(read_reply(reader), HANG_SECONDS)
    except TimeoutError:
        return "hung", b""
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return "closed", b""
    finally:
        writer.close()


async def hostile(port: int, number: int, seed: int, until: float = math.inf) -> Stage:
    """So many wrong requests, some at the same time, up to `until` by `time.monotonic`. Every reply is JSON that says
    what is wrong, or ends there."""
    stage = Stage(planned=number)

    async def ask(index: int) -> None:
        drawn = random.Random((seed << 32) + index)
        request = hostile_request(drawn)
        if b"content-length: 1000000000000" in request or b"content-length: -1" in request:
            drawn.random = lambda: 0.99  # type: ignore[method-assign]
        status, body = await send(port, request, drawn)
        stage.statuses[status] += 1
        if status == "hung" or status == "500" or (status[0] == "4" and body.startswith(b"{") and b"Traceback" in body):
            stage.wrong.append(f"request {index}: {status} {body[:200]!r}")

    await limited(32, (lambda index=index: ask(index) for index in within(range(number), until)))
    return stage
