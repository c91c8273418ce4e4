"""What stands before replicas of a server: where one is lost with a request in it, the client is told to ask again."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bothways.serve.failures import RequestError, error_content

_LOGGER = logging.getLogger("bothways.serve")

JSON = b"application/json"  # what begins so is from an application, which tells its errors itself
LOST = RequestError("stopped", "the replica that had the request was lost; ask again", headers={"retry-after": "1"})
FULL = RequestError("stopped", "no replica can take the request now; ask again", headers={"retry-after": "1"})


class Shield:
    """Replies that are not an application's own, of status 500 and 503, or none at all, become 503 with Retry-After.

    A reply that has begun cannot be mended: its connection ends, as where a server is killed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = replaced = False

        async def guarded(message: Message) -> None:
            nonlocal begun, replaced
            if replaced:
                return
            if message["type"] == "http.response.start" and not begun and _is_of_the_engine(message):
                replaced = True
                await _reply(FULL if message["status"] == 503 else LOST, scope, send)
                return
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, guarded)
        except Exception:  # whatever Ray raises where a replica is gone: its names change with its versions
            if begun or replaced:
                raise
            _LOGGER.exception("a request got no reply from its replica")
        if not begun and not replaced:
            await _reply(LOST, scope, send)


def middlewares() -> list[Middleware]:
    """What Ray Serve's proxy is to put around its application."""
    return [Middleware(Shield)]


def _is_of_the_engine(message: MutableMapping[str, Any]) -> bool:
    kinds = [value for name, value in message.get("headers", ()) if name.lower() == b"content-type"]
    return message["status"] in (500, 503) and not any(kind.startswith(JSON) for kind in kinds)


async def _reply(error: RequestError, scope: Scope, send: Send) -> None:
    given = [value for name, value in scope["headers"] if name.lower() == b"x-request-id"]
    content = error_content(scope["path"], error, given[0].decode("latin-1") if given else "")
    headers = [(b"content-type", JSON), (b"content-length", str(len(content)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in error.headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
