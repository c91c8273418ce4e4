"""From a request to the service and back: size limits, deadline, a client that leaves, replies as bytes and streams."""

from __future__ import annotations

import asyncio
import base64
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import numpy as np
from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from bothways.files import to_json
from bothways.serve.failures import RequestError, error_content
from bothways.serve.limits import Limits
from bothways.serve.schema import TextPair
from bothways.serve.service import Answered, Ask, Service, Wanted
from bothways.tasks.answer import Answer
from bothways.tasks.results import Result

Events = AsyncIterator[bytes]
PRODUCTS = {
    "rerank": ("query", "texts"),
    "choose": ("text", "choices"),
}  # each of one field is read with each of another


def service_of(request: Request) -> Service:
    """The service behind an application."""
    service: Service = request.app.state.service
    return service


async def ask(
    request: Request, model: str | None, verb: str, question: Ask, *, body: Any = None, truncate: bool = False
) -> Answered:
    """A model's answer to a question. body: what the request says, whose texts are held against the limits.

    Raises RequestError.
    """
    service = service_of(request)
    require_size(body, service.limits)
    _require_product(body, verb, service.limits)
    asked = Wanted(model, verb, question, lambda: _gone(request), truncate, request_timeout(request))
    state = request.scope["state"]
    state["verb"] = verb
    answered = await service.answer(asked)
    state["model"] = answered.model
    return answered


async def _gone(request: Request) -> None:
    """Ends when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def request_timeout(request: Request) -> float | None:
    """Seconds that the client waits, x-request-timeout. Raises RequestError for what is no such number."""
    given = request.headers.get("x-request-timeout")
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise RequestError(
            "invalid", f"x-request-timeout: {given[:40]!r}, expected seconds above 0", "x-request-timeout"
        )
    return seconds


def require_size(body: Any, limits: Limits) -> None:
    """Raises RequestError for more texts than are taken, and for longer ones, with the field."""
    if body is None:
        return
    fields = body if isinstance(body, Mapping) else {name: getattr(body, name) for name in type(body).model_fields}
    for name, value in fields.items():
        number = 0
        for text in _texts(value):
            number += 1
            if len(text) > limits.max_characters:
                said = f"{name}: a text of {len(text):,} characters, at most {limits.max_characters:,} are taken"
                raise RequestError("too_large", said, name)
        if number > limits.max_texts:
            said = f"{name}: {number:,} texts, at most {limits.max_texts:,} are taken in a request"
            raise RequestError("too_large", said, name)


def _require_product(body: Any, verb: str, limits: Limits) -> None:
    """Raises RequestError where more sequences are to be read than texts are taken, of verbs that read each text of one
    field with each of another."""
    first, second = (getattr(body, name, None) for name in PRODUCTS.get(verb, ("", "")))
    if not isinstance(first, list) or not isinstance(second, list) or (second and isinstance(second[0], list)):
        return
    if len(first) * len(second) > limits.max_texts:
        said = f"{len(first):,} × {len(second):,} texts are to be read, at most {limits.max_texts:,} are in a request"
        raise RequestError("too_large", f"{PRODUCTS[verb][1]}: {said}", PRODUCTS[verb][1])


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _texts(entry)
    elif isinstance(value, TextPair):
        yield value.text + value.pair  # a pair counts as a text
    elif isinstance(value, BaseModel):
        yield from _texts([getattr(value, name) for name in type(value).model_fields])
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _texts(entry)


def plain(value: Any) -> Any:
    """Results as JSON has them."""
    if isinstance(value, Answer):
        return {**value.to_dict(), "margin": value.margin}
    if isinstance(value, Result):
        return value.to_dict()
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def base64_vectors(vectors: np.ndarray) -> str:
    """float32 numbers, little-endian, as base64."""
    return base64.b64encode(np.ascontiguousarray(vectors, dtype="<f4").tobytes()).decode("ascii")


def json_reply(content: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A reply of JSON."""
    encoded = to_json(content, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(encoded, media_type="application/json", headers=dict(headers or {}))


def result_reply(answered: Answered, result: Any) -> Response:
    """An answer in our own shape."""
    content = {"model": answered.model, "result": result, "truncated": answered.truncated}
    return json_reply({**content, "warnings": answered.warnings})


async def stream_reply(
    request: Request,
    answer: Callable[[Callable[[Any], None]], Any],
    event: Callable[[Any], bytes],
    last: Callable[[Answered], bytes],
) -> Response:
    """What a question emits as server-sent events; an error before the first of them is a reply of its own.

    answer: called with `emit`, a coroutine of the answer. event: one thing emitted as an event. last: the end.
    """
    loop = asyncio.get_running_loop()
    emitted: asyncio.Queue[Any] = asyncio.Queue()
    ended = object()

    def emit(entry: Any) -> None:
        loop.call_soon_threadsafe(emitted.put_nowait, entry)

    task = asyncio.ensure_future(answer(emit))
    task.add_done_callback(lambda _: emitted.put_nowait(ended))
    first = await emitted.get()
    if first is ended:
        task.result()  # raises what went wrong

    async def events() -> Events:
        entry = first
        try:
            while entry is not ended:
                yield event(entry)
                entry = await emitted.get()
            yield last(task.result())
        except RequestError as error:
            content = error_content(request.url.path, error, request.scope["state"]["request_id"])
            yield b"event: error\ndata: " + content + b"\n\n"
        finally:
            task.cancel()

    return StreamingResponse(events(), media_type="text/event-stream", headers={"cache-control": "no-store"})


def server_sent(content: Any, name: str | None = None) -> bytes:
    """A server-sent event of JSON."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {to_json(content, ensure_ascii=False)}\n\n".encode()
