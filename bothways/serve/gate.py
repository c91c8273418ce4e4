"""What every request passes before and behind the routes: its id, its key, its size, its time, its line in the log."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from fastapi import FastAPI, Request

from bothways.errors import UserError
from bothways.serve.direct import DirectRoutes, read_body
from bothways.serve.failures import RequestError, error_content
from bothways.serve.keys import Keys
from bothways.serve.service import Service

_LOGGER = logging.getLogger("bothways.serve.access")
MAX_DIGITS = 18  # of a content-length, which Python then reads at once
BODY_SECONDS = 10.0  # in which a request has to arrive
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
TRACE_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
PROCESS_ID = uuid.uuid4().hex[:20]  # by which request ids of processes differ
_numbers = itertools.count(1)
OPEN_PATHS = frozenset(
    ("/", "/docs", "/openapi.json", "/healthz", "/readyz", "/health", "/favicon.ico")
)  # no key to get them

AsgiMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class RequestGate:
    """The application behind the checks that all routes share."""

    def __init__(self, app: FastAPI, direct: DirectRoutes, service: Service, keys: Keys, log_texts: bool) -> None:
        """direct: the routes that are answered without the application."""
        self._app, self._direct, self._service, self._keys, self._log_texts = app, direct, service, keys, log_texts
        self._metrics = service.metrics

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = _request_id(headers)
        status = 0

        async def send_with_id(message: AsgiMessage) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = [(b"x-request-id", request_id.encode())]
                if trace := _trace_parent(headers):
                    added.append((b"traceparent", trace.encode()))
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        try:
            state["key"] = self._checked_key(scope, headers)
            body = await self._body(scope, headers, receive)
            if self._log_texts:
                state["body"] = body.decode("utf-8", "replace")
            if scope["path"] in self._direct and scope["method"] == "POST":
                await self._answer(scope, headers, body, receive, send_with_id)
            else:
                await self._app(scope, _replayed(body, receive), send_with_id)
        except RequestError as error:
            state["kind"] = error.kind
            self._metrics.failed(error.kind)
            await _reply(scope["path"], error, request_id, send_with_id)
        finally:
            direct = scope["path"] if scope["path"] in self._direct else "other"
            self._metrics.replied(getattr(scope.get("route"), "path", direct), status)
            self._log(scope, headers, status, time.monotonic() - began)

    async def _answer(
        self, scope: MutableMapping[str, Any], headers: Mapping[str, str], body: bytes, receive: Receive, send: Send
    ) -> None:
        """The reply of a direct route."""
        kind, function = self._direct[scope["path"]]
        scope["app"] = self._app  # where the function finds the service
        request = Request(scope, receive)
        try:
            response = await function(request, read_body(kind, headers.get("content-type", ""), body))
        except RequestError:
            raise
        except UserError as error:
            raise RequestError("invalid", str(error)) from error
        except Exception as error:
            _LOGGER.error("POST %s failed", scope["path"], exc_info=error)
            raise RequestError("failed", "the server made a mistake; its log has more") from error
        await response(scope, receive, send)

    def _checked_key(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
        if scope["method"] == "OPTIONS" or (scope["method"] in ("GET", "HEAD") and scope["path"] in OPEN_PATHS):
            return None
        return self._keys.check(headers)

    async def _body(self, scope: Mapping[str, Any], headers: Mapping[str, str], receive: Receive) -> bytes:
        """The whole body. Raises RequestError for one that is too large or comes too slowly, and where nothing is
        accepted."""
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return b""
        self._service.require_room()
        limit = self._service.limits.max_body
        length = headers.get("content-length", "0")
        too_large = RequestError(
            "too_large", f"the request has more than {limit:,} bytes", headers={"connection": "close"}
        )
        if length.isdecimal() and (len(length) > MAX_DIGITS or int(length) > limit):
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RequestError("malformed", "the client left before its request was complete")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise too_large
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            message_text = f"the request was not complete after {BODY_SECONDS:g} seconds"
            raise RequestError("slow_body", message_text, headers={"connection": "close"}) from None

    def _log(self, scope: Mapping[str, Any], headers: Mapping[str, str], status: int, seconds: float) -> None:
        if not _LOGGER.isEnabledFor(logging.INFO):
            return
        state = scope["state"]
        told = {name: state[name] for name in ("request_id", "key", "model", "verb", "kind", "body") if state.get(name)}
        trace = _trace_parent(headers)
        _LOGGER.info(
            "%s %s %d",
            scope["method"],
            scope["path"],
            status,
            extra={
                **told,
                **({"trace_id": trace.split("-")[1]} if trace else {}),
                "status": status,
                "milliseconds": round(seconds * 1e3, 1),
            },
        )


def _request_id(headers: Mapping[str, str]) -> str:
    given = headers.get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else f"{PROCESS_ID}{next(_numbers):012x}"


def _trace_parent(headers: Mapping[str, str]) -> str | None:
    given = headers.get("traceparent", "")
    return given if TRACE_PARENT.fullmatch(given) else None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read already, then what comes behind it."""
    given = False

    async def replay() -> AsgiMessage:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _reply(path: str, error: RequestError, request_id: str, send: Send) -> None:
    content = error_content(path, error, request_id)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in error.headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
