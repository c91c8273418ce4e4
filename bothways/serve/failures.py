"""What goes wrong with a request: a kind, a status and a sentence. How a route writes it is the route's own shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bothways.files import to_json

# kind → status. Kinds are stable names that a program may read.
STATUS = {
    "malformed": 400,
    "wrong_model": 400,
    "unauthorized": 401,
    "not_found": 404,
    "model_not_found": 404,
    "method_not_allowed": 405,
    "slow_body": 408,
    "too_large": 413,
    "invalid": 422,
    "truncated": 422,
    "busy": 429,
    "failed": 500,
    "loading": 503,
    "draining": 503,
    "stopped": 503,
    "deadline": 504,
}


@dataclass
class RequestError(Exception):
    """A request that is answered with an error. field: which part of the request is meant. headers: of the reply."""

    kind: str
    message: str
    field: str | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def status(self) -> int:
        return STATUS[self.kind]

    def __str__(self) -> str:
        return self.message


TEI_TYPES = {"busy": "overloaded", "loading": "unhealthy", "draining": "unhealthy", "failed": "backend"}


def error_content(path: str, error: RequestError, request_id: str) -> bytes:
    """The body of an error reply, in the shape that the route's clients know: our own, which is OpenAI's as well, for
    all but those of Cohere's and Jina's rerank, text-embeddings-inference and Hugging Face."""
    if path in ("/v1/rerank", "/v2/rerank"):
        # our own `/v1/rerank` is the same route; its clients read the whole object
        return _encoded({"message": error.message, **_own(error, request_id)})
    if path in ("/", "/embed", "/predict", "/rerank", "/tokenize", "/info"):
        kind = TEI_TYPES.get(error.kind, "validation")
        return _encoded({"error": error.message, "error_type": kind, "request_id": request_id})
    if path.startswith("/models/"):
        return _encoded({"error": error.message, "request_id": request_id})
    return _encoded(_own(error, request_id))


def _own(error: RequestError, request_id: str) -> dict[str, Any]:
    told = {"type": error.kind, "message": error.message, "param": error.field, "code": error.kind}
    return {"error": {**told, "request_id": request_id}}


def _encoded(content: Mapping[str, Any]) -> bytes:
    return to_json(content, ensure_ascii=False).encode("utf-8", "backslashreplace")
