"""`bw.Client` and `bw.AsyncClient`: a Predictor's methods, answered by `bothways serve`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from bothways.client.calls import (
    AGAIN,
    Call,
    ServerError,
    calls_in_parts,
    checked_reply,
    headers_of,
    http_library,
    joined,
    pause,
    same,
)
from bothways.client.methods import RemoteMethods
from bothways.client.results import ReadResult, vectors_of

_CUT_SHORT = "the stream ended before the text did"


class _Connected(RemoteMethods):
    """What both clients begin with. _kind: the class of httpx2 that asks."""

    _kind: ClassVar[str]

    def __init__(
        self,
        url: str,
        model: str | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 5,
        transport: Any = None,
    ) -> None:
        """transport: of httpx2, for tests and proxies."""
        self._model, self._retries = model, retries
        self._library = http_library()
        self._http = getattr(self._library, self._kind)(
            base_url=url, headers=headers_of(api_key, timeout), timeout=timeout, transport=transport
        )

    @contextlib.contextmanager
    def _server_errors(self) -> Iterator[None]:
        """Within it an error of the connection is a ServerError."""
        try:
            yield
        except self._library.TransportError as error:
            raise ServerError(f"{self._http.base_url}: {error or type(error).__name__}") from error


class Client(_Connected):
    """The methods of a Predictor, answered by a server: code moves there by `model = bw.Client(url)`.

    url: of the server. model: its name there; may be left out where only one can answer. api_key: where the server asks
    for one. timeout: seconds for a request. retries: how often a request is made again where the server is full (429),
    not there or about to be another (503), after the time that it asks for or a growing one.
    Raises UserError for what the request is wrong in, ServerError for what the server is.
    """

    _kind = "Client"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def models(self) -> list[dict[str, Any]]:
        """The models of the server, and what each can."""
        reply = self._sent("GET", "/v1/models", None)
        content = checked_reply(reply.status_code, _content(reply))
        found: list[dict[str, Any]] = content["data"]
        return found

    def stream(self, prompt: str, *, truncate: str | None = None, **options: Any) -> Iterator[str]:
        """As `Predictor.stream`. It is asked once; ServerError where the server leaves before the end."""
        body = _stream_body(self._model, prompt, truncate, options)
        with self._server_errors(), self._http.stream("POST", "/v1/generate", json=body) as reply:
            if reply.status_code != 200:
                reply.read()
                checked_reply(reply.status_code, _content(reply))
            for name, content in _events(reply.iter_lines()):
                if name == "done":
                    checked_reply(200, content)
                    return
                yield _piece(name, content)
            raise ServerError(_CUT_SHORT)

    def _ask(self, call: Call) -> Any:
        return call.result(self._result(call))

    def _result(self, call: Call) -> Any:
        reply = self._sent("POST", f"/v1/{call.verb}", {"model": self._model, **call.fields})
        return checked_reply(reply.status_code, _content(reply))["result"]

    def _each(self, verb: str, name: str, texts: Any, fields: Mapping[str, Any], read: ReadResult) -> Any:
        calls, alone = calls_in_parts(verb, name, texts, fields, read)
        found = [self._ask(call) for call in calls]
        return found[0] if alone else joined(found, [])

    def _vectors(self, texts: Any, fields: Mapping[str, Any]) -> Any:
        calls, _ = calls_in_parts("embed", "texts", texts, fields, same)
        return _stacked([vectors_of(self._result(call)) for call in calls])

    def _sent(self, method: str, path: str, body: Any) -> Any:
        """The reply to a request, made again where that helps."""
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            try:
                with self._server_errors():
                    reply = self._http.request(method, path, json=body)
            except ServerError:
                if last:
                    raise
                time.sleep(pause(attempt, None))
                continue
            if reply.status_code not in AGAIN or last:
                return reply
            time.sleep(pause(attempt, reply.headers.get("retry-after")))
        raise AssertionError("unreachable")


class AsyncClient(_Connected):
    """As `Client`, its results awaited: `await model.classify(…)`."""

    _kind = "AsyncClient"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def models(self) -> list[dict[str, Any]]:
        """The models of the server, and what each can."""
        reply = await self._sent("GET", "/v1/models", None)
        content = checked_reply(reply.status_code, _content(reply))
        found: list[dict[str, Any]] = content["data"]
        return found

    async def stream(self, prompt: str, *, truncate: str | None = None, **options: Any) -> AsyncIterator[str]:
        """As `Client.stream`."""
        body = _stream_body(self._model, prompt, truncate, options)
        with self._server_errors():
            async with self._http.stream("POST", "/v1/generate", json=body) as reply:
                if reply.status_code != 200:
                    await reply.aread()
                    checked_reply(reply.status_code, _content(reply))
                lines: list[str] = []
                async for line in reply.aiter_lines():
                    lines.append(line)
                    if line:
                        continue
                    for name, content in _events(iter(lines)):
                        if name == "done":
                            checked_reply(200, content)
                            return
                        yield _piece(name, content)
                    lines = []
                raise ServerError(_CUT_SHORT)

    async def _ask(self, call: Call) -> Any:
        return call.result(await self._result(call))

    async def _result(self, call: Call) -> Any:
        reply = await self._sent("POST", f"/v1/{call.verb}", {"model": self._model, **call.fields})
        return checked_reply(reply.status_code, _content(reply))["result"]

    async def _each(self, verb: str, name: str, texts: Any, fields: Mapping[str, Any], read: ReadResult) -> Any:
        calls, alone = calls_in_parts(verb, name, texts, fields, read)
        found = [await self._ask(call) for call in calls]
        return found[0] if alone else joined(found, [])

    async def _vectors(self, texts: Any, fields: Mapping[str, Any]) -> Any:
        calls, _ = calls_in_parts("embed", "texts", texts, fields, same)
        return _stacked([vectors_of(await self._result(call)) for call in calls])

    async def _sent(self, method: str, path: str, body: Any) -> Any:
        """The reply to a request, made again where that helps."""
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            try:
                with self._server_errors():
                    reply = await self._http.request(method, path, json=body)
            except ServerError:
                if last:
                    raise
                await asyncio.sleep(pause(attempt, None))
                continue
            if reply.status_code not in AGAIN or last:
                return reply
            await asyncio.sleep(pause(attempt, reply.headers.get("retry-after")))
        raise AssertionError("unreachable")


def _stacked(parts: list[np.ndarray]) -> np.ndarray:
    if not parts:
        return np.zeros((0, 0), np.float32)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _content(reply: Any) -> Any:
    """The JSON of a reply; None where it is none, as of a proxy that stands between."""
    try:
        return reply.json()
    except ValueError:
        return None


def _stream_body(model: str | None, prompt: str, truncate: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": model, "prompt": prompt, "truncate": truncate == "left", "stream": True, **options}


def _events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """Server-sent events: the name of each, and its content."""
    name = ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)
            name = ""


def _piece(name: str, content: Mapping[str, Any]) -> str:
    """The text of an event. Raises ServerError for one of an error."""
    if name == "error":
        checked_reply(500, content)
    text: str = content["text"]
    return text
