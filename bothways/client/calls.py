"""What both clients share: how a call becomes a request, what a reply becomes, and when it is asked again."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bothways.client.results import ReadResult
from bothways.errors import TruncationWarning, UnknownTokensWarning, UserError, install_command, warn_at_caller
from bothways.inference.texts import Asked, asked_texts

TEXTS_IN_A_REQUEST = 256  # of a long list, which is asked in parts; servers take 512 by default
FIRST_PAUSE = 0.25  # seconds before the second try, doubled for each that follows
LONGEST_PAUSE = 30.0
AGAIN = (429, 503)  # statuses of a server that is full, loading, or about to be another
WARNINGS = {"truncated": TruncationWarning, "unknown_tokens": UnknownTokensWarning}


class ServerError(RuntimeError):
    """A server did not answer. status: of its reply, None where there was none. kind: as it names the error."""

    def __init__(self, message: str, status: int | None = None, kind: str = "unreachable") -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


@dataclass(frozen=True)
class Call:
    """A question to a server. verb: of the route. fields: of the request. read: its result, or each of a list."""

    verb: str
    fields: Mapping[str, Any]
    read: ReadResult
    many: bool

    def result(self, value: Any) -> Any:
        """The result as the Predictor gives it."""
        return [self.read(entry) for entry in value] if self.many else self.read(value)


def same(value: Any) -> Any:
    """A result that is plain already."""
    return value


def wire(asked: Asked) -> Any:
    """Texts and pairs as a request has them."""
    texts = [text if isinstance(text, str) else {"text": text[0], "pair": text[1]} for text in asked.texts]
    return asked.given(texts)


def calls_in_parts(
    verb: str, name: str, texts: Any, fields: Mapping[str, Any], read: ReadResult
) -> tuple[list[Call], bool]:
    """The calls that a list of texts is asked in, and whether it is one text. name: of the field of the texts."""
    asked = asked_texts(texts)
    if asked.alone:
        return [Call(verb, {**fields, name: wire(asked)}, read, False)], True
    listed = wire(asked)
    starts = range(0, len(listed), TEXTS_IN_A_REQUEST)
    return [
        Call(verb, {**fields, name: listed[start : start + TEXTS_IN_A_REQUEST]}, read, True) for start in starts
    ], False


def listed(texts: Any) -> tuple[Any, bool]:
    """Texts as a request has them, and whether they are several."""
    asked = asked_texts(texts)
    return wire(asked), not asked.alone


def pause(attempt: int, retry_after: str | None) -> float:
    """Seconds before the next try: what the server asked for, at least, and some of a time that doubles, by chance, so
    that clients that were refused together do not come back together."""
    asked = float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
    drawn = random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt))
    return min(asked, LONGEST_PAUSE) + drawn


def checked_reply(status: int, content: Any) -> Any:
    """What a reply holds. Raises UserError for what the request was wrong in, else ServerError; warns as it warns."""
    if status == 200 and isinstance(content, Mapping):
        for warning in content.get("warnings", ()):
            warn_at_caller(warning["message"], WARNINGS.get(warning["kind"], UserWarning))
        return content
    error = content.get("error") if isinstance(content, Mapping) else None
    if not isinstance(error, Mapping):
        raise ServerError(f"the server answered {status}, not in Bothways' words", status, "unknown")
    message, kind = str(error.get("message")), str(error.get("type"))
    if status in (400, 404, 413, 422):
        raise UserError(message)
    raise ServerError(f"{message} ({status}, request {error.get('request_id')})", status, kind)


def http_library() -> Any:
    """The library of both clients. Raises UserError where it is not installed."""
    try:
        import httpx2
    except ImportError as error:
        raise UserError(f"the client needs httpx2; {install_command('client')}") from error
    return httpx2


def headers_of(api_key: str | None, timeout: float) -> dict[str, str]:
    """The headers of every request."""
    key = {"authorization": f"Bearer {api_key}"} if api_key else {}
    return {"x-request-timeout": f"{timeout:g}", **key}


def joined(parts: Sequence[Any], empty: Any) -> Any:
    """The results of a list that was asked in parts."""
    return [result for part in parts for result in part] if parts else empty
