"""Requests that schemathesis draws from our own OpenAPI document, those that fit it and those that do not."""

from __future__ import annotations

import asyncio
import copy
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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


def draw_requests(
    document: Mapping[str, Any], models: Sequence[str], each: int, number: int, ask: Callable[[Drawn], None]
) -> None:
    """Ask about so many requests of each route that fit, and as many that do not. models: names that are drawn, as
    hardly another would be one. number: the seed."""
    schema = schemathesis.openapi.from_dict(_with_names(document, models))
    quiet = settings(
        max_examples=each,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    for found in schema.get_all_operations():
        operation = found.ok()
        # a GET of ours has nothing that could be wrong
        modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE][: 2 if operation.method == "post" else 1]
        for mode in modes:
            drawing = given(operation.as_strategy(generation_mode=mode))
            quiet(seed(number)(drawing(_asking(ask, mode is GenerationMode.POSITIVE))))()


def _with_names(document: Mapping[str, Any], models: Sequence[str]) -> dict[str, Any]:
    """The document, whose models are those of the server."""
    named: dict[str, Any] = copy.deepcopy(dict(document))
    for schema in named["components"]["schemas"].values():
        if "model" in schema.get("properties", {}):
            schema["properties"]["model"] = {"enum": list(models)}
    for methods in named["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                if parameter["name"] == "name":
                    parameter["schema"] = {"enum": list(models)}
    return named


def _asking(ask: Callable[[Drawn], None], fits: bool) -> Callable[[Any], None]:
    def case(case: Any) -> None:
        drawn = b"" if isinstance(case.body, NotSet) else case.body
        body = drawn if isinstance(drawn, bytes) else json.dumps(drawn).encode()
        headers = {"content-type": "application/json", **{name: str(v) for name, v in case.headers.items()}}
        headers["x-request-timeout"] = SECONDS
        ask(Drawn(case.method, case.formatted_path, headers, body, fits))

    return case


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
        models = [model["id"] for model in client.get("/v1/models").json()["data"]]
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

        draw_requests(document, models, each, random.Random(seed_number).getrandbits(32), ask)
