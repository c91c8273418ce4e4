"""Open-loop load over HTTP on loopback: arrivals are drawn beforehand, and latency counts from the moment a request was
due, so that a server that falls behind is not asked less (no coordinated omission).

Requests are bytes that are made beforehand, on connections that stay open, so that the load takes little of the cores.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlparse

import numpy as np

STEPS = 6  # rates that are tried to find the highest one


@dataclass
class Outcome:
    """What became of the requests of a rate. latencies: of those answered with 200, seconds from when each was due."""

    rate: float
    seconds: float
    latencies: list[float] = field(default_factory=list)
    failures: int = 0

    def quantile(self, share: float) -> float:
        """Milliseconds; of a request that failed they are infinite."""
        every = [*self.latencies, *([float("inf")] * self.failures)]
        return float(np.quantile(every, share, method="higher") * 1e3) if every else float("inf")

    @property
    def answered_rate(self) -> float:
        return len(self.latencies) / self.seconds


def request_bytes(url: str, body: bytes) -> bytes:
    """A POST of JSON."""
    parsed = urlparse(url)
    head = f"POST {parsed.path} HTTP/1.1\r\nhost: {parsed.netloc}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def open_loop(url: str, requests: Sequence[bytes], rate: float, seconds: float, clients: int) -> Outcome:
    """So many requests a second, as a Poisson process, over so many connections. Those that are not answered when
    twice the time is over have failed."""
    drawn = np.random.default_rng(0).exponential(1 / rate, max(1, round(rate * seconds)))
    return asyncio.run(_run(url, requests, np.cumsum(drawn), clients, Outcome(rate, seconds)))


def closed_loop(url: str, requests: Sequence[bytes], seconds: float, clients: int) -> Outcome:
    """Every client asks again when it has its answer: the rate at saturation, and the latency of one request alone."""
    return asyncio.run(_run(url, requests, None, clients, Outcome(0.0, seconds)))


async def _run(url: str, requests: Sequence[bytes], due: np.ndarray | None, clients: int, outcome: Outcome) -> Outcome:
    began = time.perf_counter()
    numbers = iter(range(len(due))) if due is not None else iter(range(1 << 60))
    limit = began + outcome.seconds * (2 if due is not None else 1)

    async def client() -> None:
        reader, writer = await _connect(url)
        for number in numbers:
            now = time.perf_counter()
            intended = began + due[number] if due is not None else now
            if now > limit and due is None:
                break
            if now > limit:
                outcome.failures += 1
                continue
            if intended > now:
                await asyncio.sleep(intended - now)
            try:
                writer.write(requests[number % len(requests)])
                good = await _reply(reader)
            except (OSError, asyncio.IncompleteReadError):
                good = False
                reader, writer = await _connect(url)
            if good:
                outcome.latencies.append(time.perf_counter() - intended)
            else:
                outcome.failures += 1
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return outcome


async def _connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parsed = urlparse(url)
    assert parsed.hostname == "127.0.0.1", "load stays on loopback"
    return await asyncio.open_connection(parsed.hostname, parsed.port)


async def _reply(reader: asyncio.StreamReader) -> bool:
    """Read a reply; whether it was a 200."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), None)
    if length is not None:
        await reader.readexactly(length)
    else:  # in chunks
        while (size := int((await reader.readline()).split(b";")[0], 16)) > 0:
            await reader.readexactly(size + 2)
        await reader.readline()
    return lines[0].split()[1] == b"200"


def highest_rate(
    url: str, requests: Sequence[bytes], clients: int, seconds: float, limit_ms: float, start: float
) -> tuple[float, Outcome | None]:
    """The highest rate at which p99 stays within a limit, by halving; start: a rate that is too high."""
    low, high, best = 0.0, start, None
    for _ in range(STEPS):
        middle = (low + high) / 2
        outcome = open_loop(url, requests, middle, seconds, clients)
        if outcome.quantile(0.99) <= limit_ms:
            low, best = middle, outcome
        else:
            high = middle
    return low, best
