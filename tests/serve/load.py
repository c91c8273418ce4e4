"""Right requests, ordinary ones, too many, and of many kinds at once; and what became of them."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from bothways.serve.asking import plain
from tests.serve.conftest import served_predictor
from tests.serve.serving import TEXT

HANG_SECONDS = 60.0
WORDS = ("the", "red", "dog", "runs", "in", "a", "big", "house", "and", "eats", "not", "bird", "old", "cat", "sleeps")
Checker = Callable[[str, Any], bool]


@dataclass
class Stage:
    """What became of one stage's requests. planned: how many there were to be, 0 where only time bounds them.
    latencies: of the accepted ones, seconds. wrong: accepted, but answered otherwise than they should be."""

    planned: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def number(self) -> int:
        return sum(self.statuses.values())

    def quantile(self, share: float) -> float:
        """Seconds of the accepted requests."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else math.nan


def within(numbers: Iterable[int], until: float) -> Iterator[int]:
    """The numbers, as long as it is not later than `until`, by `time.monotonic`."""
    for number in numbers:
        if time.monotonic() > until:
            return
        yield number


async def read_reply(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length:")), 0)
    return lines[0].split()[1], await reader.readexactly(length)


async def ordinary(port: int, number: int, check: Checker, clients: int = 16, until: float = math.inf) -> Stage:
    """So many right requests; each accepted one is answered as it should be."""
    return await asking(port, within(range(number), until), check, clients, Stage(planned=number))


async def overload(port: int, seconds: float, check: Checker, clients: int) -> Stage:
    """As many requests as these clients can send, more than the server takes, for so long."""
    endless = within(range(1 << 60), time.monotonic() + seconds)
    return await asking(port, endless, check, clients, Stage())


async def mixed(port: int, number: int, seed: int, until: float = math.inf) -> Stage:
    """So many requests of every kind over three models, each on a connection of its own, all at the same time; each
    reply has the bits of the Python call."""
    requests = [mixed_request(random.Random((seed << 32) + index)) for index in within(range(number), until)]
    known = [
        json.loads(json.dumps(plain(getattr(served_predictor(fields["model"]), verb)(**without_model(fields)))))
        for verb, fields in requests
    ]
    stage, open_ones = Stage(planned=number), asyncio.Event()

    async def ask(index: int, verb: str, fields: dict[str, Any]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await open_ones.wait()
        await one_request(stage, reader, writer, verb, fields, lambda found: bool(found == known[index]))
        writer.close()

    tasks = [asyncio.ensure_future(ask(index, *request)) for index, request in enumerate(requests)]
    open_ones.set()
    await asyncio.gather(*tasks)
    return stage


def mixed_request(drawn: random.Random) -> tuple[str, dict[str, Any]]:
    """A verb and what it is asked."""

    def text() -> str:
        return " ".join(drawn.choices(WORDS, k=drawn.randint(1, 12)))

    texts: Any = text() if drawn.random() < 0.5 else [text() for _ in range(drawn.randint(1, 4))]
    sampling = {"max_tokens": drawn.randint(1, 9), "seed": drawn.randint(0, 99), "temperature": 1.3}
    return drawn.choice(
        [
            ("classify", {"model": "classify", "texts": texts}),
            ("embed", {"model": "classify", "texts": texts}),
            ("embed", {"model": "similar", "texts": texts}),
            ("similar", {"model": "similar", "query": text(), "texts": [text() for _ in range(3)]}),
            ("generate", {"model": "causal", "prompt": texts, **sampling}),
            ("score", {"model": "causal", "text": texts}),
            ("suggest", {"model": "causal", "prompt": text()}),
        ]
    )


def without_model(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "model"}


async def asking(port: int, numbers: Iterable[int], check: Checker, clients: int, stage: Stage) -> Stage:
    numbers = iter(numbers)

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            verb = ("classify", "tag", "embed")[number % 3]
            fields = {"model": {"embed": "similar"}.get(verb, verb), "texts": TEXT}
            await one_request(stage, reader, writer, verb, fields, lambda found, verb=verb: check(verb, found))
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return stage


async def one_request(
    stage: Stage,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    verb: str,
    fields: dict[str, Any],
    is_right: Callable[[Any], bool],
) -> None:
    """Ask, and count what came of it."""
    body = json.dumps(fields).encode()
    head = f"POST /v1/{verb} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    began = time.monotonic()
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    status, reply = await asyncio.wait_for(read_reply(reader), HANG_SECONDS)
    stage.statuses[status] += 1
    if status == "200":
        stage.latencies.append(time.monotonic() - began)
        if not is_right(json.loads(reply)["result"]):
            stage.wrong.append(f"{verb} {fields}: {reply[:200]!r}")
    elif status not in ("429", "503"):
        stage.wrong.append(f"{verb} {fields}: {status} {reply[:200]!r}")


async def limited(at_once: int, calls: Any) -> None:
    """All calls, at most so many at the same time."""
    calls = iter(calls)

    async def worker() -> None:
        for call in calls:
            await call()

    workers: list[Awaitable[None]] = [worker() for _ in range(at_once)]
    await asyncio.gather(*workers)
