"""The application: all routes behind one gate, and one way in which errors become replies."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from bothways.errors import UserError
from bothways.serve.asking import json_reply, service_of
from bothways.serve.direct import direct_routes, field_error
from bothways.serve.failures import RequestError, error_content
from bothways.serve.gate import Application, RequestGate
from bothways.serve.hugging_face_routes import hugging_face_routes
from bothways.serve.keys import Keys
from bothways.serve.metrics import CONTENT_TYPE
from bothways.serve.openai_routes import openai_routes
from bothways.serve.pages import page_routes
from bothways.serve.rerank_routes import rerank_routes
from bothways.serve.service import Service
from bothways.serve.tei_routes import tei_routes
from bothways.serve.verb_routes import verb_routes
from bothways.version import __version__

_LOGGER = logging.getLogger("bothways.serve")
SPANS = "FASTAPI_OTEL_AUTO_CONFIGURE"
KINDS_BY_STATUS = {400: "malformed", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def make_app(
    service: Service, keys: Keys | None = None, cors: Sequence[str] = (), log_texts: bool = False
) -> Application:
    """The application of a service. cors: origins of pages that may ask; none but its own page by default. log_texts:
    whether the log has what is asked."""
    app = FastAPI(
        title="Bothways",
        version=__version__,
        description="Every task of BERT behind HTTP.",
        telemetry={"logs": False},  # what is exported, where a user has an exporter, has no texts
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(UserError, _user_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _own_error)
    routers = [verb_routes(), openai_routes(), rerank_routes(), tei_routes(), hugging_face_routes()]
    for router in routers:
        app.include_router(router)
    app.include_router(page_routes())
    app.get("/healthz", tags=["operation"], summary="Whether the process is alive")(_alive)
    app.get("/readyz", tags=["operation"], summary="Whether it answers: loaded, warm, not draining")(_ready)
    app.get("/metrics", tags=["operation"], summary="Figures for Prometheus")(_metrics)
    # spans are FastAPI's, so every request goes through it where they are asked for
    direct = {} if os.environ.get(SPANS) else direct_routes(routers)
    gate: Application = RequestGate(app, direct, service, keys or Keys({}), log_texts)
    if cors:
        gate = CORSMiddleware(gate, list(cors), allow_methods=["*"], allow_headers=["*"])
    return gate


async def _alive() -> Response:
    return json_reply({"status": "alive"})


async def _ready(request: Request) -> Response:
    service = service_of(request)
    service.require_ready()
    return json_reply({"status": "ready", "models": list(service.models)})


async def _metrics(request: Request) -> Response:
    return Response(service_of(request).metrics.text(), media_type=CONTENT_TYPE)


async def _request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    state = request.scope["state"]
    state["kind"] = error.kind
    service_of(request).metrics.failed(error.kind)
    content = error_content(request.url.path, error, state["request_id"])
    return Response(content, error.status, media_type="application/json", headers=dict(error.headers))


async def _user_error(request: Request, error: Exception) -> Response:
    return await _request_error(request, RequestError("invalid", str(error)))


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _request_error(request, field_error(error.errors()))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = KINDS_BY_STATUS.get(error.status_code, "malformed")
    message = f"{request.method} {request.url.path}: no such route" if kind == "not_found" else str(error.detail)
    return await _request_error(request, RequestError(kind, message, headers=error.headers or {}))


async def _own_error(request: Request, error: Exception) -> Response:
    _LOGGER.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return await _request_error(request, RequestError("failed", "the server made a mistake; its log has more"))
