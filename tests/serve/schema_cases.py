"""Requests that schemathesis draws from our own OpenAPI document, those that fit it and those that do not."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.core import NotSet
from schemathesis.generation.modes import GenerationMode

from tests.serve.load import HANG_SECONDS, Stage

SECONDS = "0.5"  # in which each is answered, x-request-timeout: what fits the document may ask for a lot
KNOWN = {200, 400, 404, 408, 413, 422, 429, 503, 504}


@dataclass(frozen=True)
class Drawn:
    """A request. fits: whether the document allows it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    fits: bool


def draw_requests(document: Mapping[str, Any], each: int, number: int, ask: Callable[[Drawn], None]) -> None:
    """Ask about so many requests of each route that fit, and as many that do not. number: the seed."""
    schema = schemathesis.openapi.from_dict(dict(document))
    quiet = settings(
        max_examples=each,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if mode is GenerationMode.NEGATIVE and operation.method != "post":
                continue  # a GET of ours has nothing that could be wrong

            @quiet
            @seed(number)
            @given(operation.as_strategy(generation_mode=mode))
            def one(case: Any, fits: bool = mode is GenerationMode.POSITIVE) -> None:
                has_body = not isinstance(case.body, NotSet)
                body = json.dumps(case.body).encode() if has_body else b""
                headers = {"content-type": "application/json", **{name: str(v) for name, v in case.headers.items()}}
                headers["x-request-timeout"] = SECONDS
                ask(Drawn(case.method, case.formatted_path, headers, body, fits))

            one()


def wrong_in(drawn: Drawn, status: int, content: str) -> str | None:
    """What is wrong in a reply: a mistake of the server's, an unknown status, an error that says nothing."""
    told = f"{drawn.method} {drawn.path} {drawn.body[:300]!r}: {status} {content[:200]}"
    if status not in KNOWN or "Traceback" in content:
        return told
    if status >= 400:
        error = json.loads(content)
        shown = error.get("error", error.get("message"))
        if not (shown.get("message") if isinstance(shown, dict) else shown):
            return told
    return None


async def from_schema(address: str, number: int, seed_number: int, until: float = math.inf) -> Stage:
    """About so many requests, one after the other."""
    stage = Stage()
    await asyncio.to_thread(_ask_all, stage, address, number, seed_number, until)
    return stage


def _ask_all(stage: Stage, address: str, number: int, seed_number: int, until: float) -> None:
    with httpx2.Client(base_url=address, timeout=HANG_SECONDS) as client:
        document = client.get("/openapi.json").json()
        operations = Counter(method for methods in document["paths"].values() for method in methods)
        each = max(1, number // (2 * operations["post"] + operations["get"]))

        def ask(drawn: Drawn) -> None:
            if time.monotonic() > until:
                return
            began = time.monotonic()
            reply = client.request(drawn.method, drawn.path, headers=dict(drawn.headers), content=drawn.body)
            stage.statuses[str(reply.status_code)] += 1
            if reply.status_code == 200:
                stage.latencies.append(time.monotonic() - began)
            if (found := wrong_in(drawn, reply.status_code, reply.text)) is not None:
                stage.wrong.append(found)

        draw_requests(document, each, random.Random(seed_number).getrandbits(32), ask)
