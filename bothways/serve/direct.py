"""The short way to a route: path, body, function, without FastAPI in between, which takes as long as all else does.

FastAPI keeps the same routes for `/openapi.json`, and answers what has a parameter in its path.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError

from bothways.serve.failures import RequestError

Function = Callable[[Request, Any], Awaitable[Response]]
DirectRoutes = Mapping[str, tuple[TypeAdapter[Any], Function]]


def direct_routes(routers: Iterable[APIRouter]) -> DirectRoutes:
    """The POST routes of a fixed path whose function takes the request and a body, by their path."""
    found = {}
    for router in routers:
        for route in router.routes:
            if not isinstance(route, APIRoute) or route.methods != {"POST"} or "{" in route.path:
                continue
            if list(inspect.signature(route.endpoint).parameters) == ["request", "body"]:
                kind = typing.get_type_hints(route.endpoint)["body"]
                found[route.path] = (TypeAdapter(kind), route.endpoint)
    return found


def read_body(kind: TypeAdapter[Any], content_type: str, body: bytes) -> Any:
    """The body of a request. Raises RequestError for what is no JSON, and for fields that are wrong."""
    if content_type and "json" not in content_type:  # what a page of another origin may send without asking
        raise RequestError("malformed", f"content-type: {content_type[:60]!r}, expected application/json")
    try:
        return kind.validate_json(body)
    except ValidationError as error:
        raise field_error(error.errors(include_url=False)) from None


def field_error(errors: typing.Sequence[Any]) -> RequestError:
    """What is wrong with a body, by pydantic: the first of its errors, and how many others there are."""
    first: Mapping[str, Any] = errors[0]
    if first["type"] == "json_invalid":
        return RequestError("malformed", f"the request: {first['msg']}")
    field = ".".join(str(part) for part in first["loc"] if part != "body")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return RequestError("invalid", f"{field or 'the request'}: {first['msg']}{more}", field or None)
