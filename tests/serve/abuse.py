"""Hostile and malformed requests, overload, then ordinary ones: whether a server stays right, bounded and alive.

    python -m tests.serve.abuse --hostile 10000 --overload 60 --ordinary 200000

starts `bothways serve` on loopback with three small models and prints a line for each stage: replies by status, memory,
the slowest accepted request. All load stays on this machine and is bounded in number and time. The exit code is 1 where
an accepted answer was wrong, a reply had no known shape, memory grew, something hung, or the end was not clean.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil

from tests.serve.serving import TEXT, Server, expected_of, started

HANG_SECONDS = 60.0
VERBS = ("classify", "tag", "answer", "embed", "similar", "fill", "generate", "chat", "score", "explain", "tokenize")
Checker = Callable[[str, Any], bool]


@dataclass
class Stage:
    """What became of one stage's requests. wrong: accepted, but answered otherwise than they should be."""

    statuses: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def line(self, name: str, megabytes: float) -> str:
        counts = ", ".join(f"{status} {count:,}" for status, count in sorted(self.statuses.items()))
        return f"{name}: {counts}; slowest accepted {self.slowest:.2f} s; memory {megabytes:,.0f} MB"


def hostile_request(drawn: random.Random) -> bytes:
    """One request that is wrong in some way: types, sizes, depths, encodings, headers, or not HTTP at all."""
    verb = drawn.choice(VERBS)
    fields: dict[str, Any] = {"model": drawn.choice(["classify", "tag", "nothing", None, 5, "../../etc/passwd"])}
    names = ("texts", "text", "question", "context", "prompt", "messages", "query", "top_k", "max_tokens", "choices")
    junk = (None, 0, -1, 1e308, True, "", "\0", "\u202e", "a" * 5000, [], {}, [[[]]], {"text": 5}, [None] * 50, 2**70)
    for name in drawn.sample(names, drawn.randint(0, 4)):
        fields[name] = drawn.choice((*junk, TEXT, [TEXT] * 3, "[MASK] " * 40))
    body = json.dumps(fields).encode()
    kind = drawn.randrange(9)
    if kind == 0:
        body = body[: drawn.randint(0, len(body))]
    elif kind == 1:
        body = b"[" * drawn.choice((100, 100_000))
    elif kind == 2:
        body = bytes(drawn.randrange(256) for _ in range(200))
    elif kind == 3:
        body = json.dumps({"model": "classify", "texts": "\ud800"}).encode()
    elif kind == 4:
        return bytes(drawn.randrange(256) for _ in range(drawn.randint(1, 400))) + b"\r\n\r\n"
    length = len(body) if drawn.random() < 0.9 else drawn.choice((0, 10**12, -1, len(body) // 2))
    path = drawn.choice(
        (f"/v1/{verb}", f"/v1/{verb}/", "/models/classify", "/embed", "/rerank", "/v1/embeddings", "/%00")
    )
    method = drawn.choice(("POST",) * 8 + ("GET", "PUT"))
    extra = drawn.choice(
        ("", "", "x-request-timeout: -5\r\n", f"x-request-id: {'i' * 300}\r\n", "authorization: \xff\r\n")
    )
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{extra}"
    return f"{head}content-length: {length}\r\n\r\n".encode("latin-1") + body


async def send(port: int, request: bytes, drawn: random.Random) -> tuple[str, bytes]:
    """The status of the reply and its body; `closed` where the server ended the connection without one. Some requests
    come in two parts, some clients leave, and some close their side first."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        if drawn.random() < 0.1:
            writer.write(request[: len(request) // 2])
            await asyncio.sleep(0.01)
            request = request[len(request) // 2 :]
            if drawn.random() < 0.5:
                return "left", b""
        writer.write(request)
        if drawn.random() < 0.1:
            writer.write_eof()
        elif drawn.random() < 0.1:
            return "left", b""
        return await asyncio.wait_for(read_reply(reader), HANG_SECONDS)
    except TimeoutError:
        return "hung", b""
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return "closed", b""
    finally:
        writer.close()


async def read_reply(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length:")), 0)
    return lines[0].split()[1], await reader.readexactly(length)


async def hostile(port: int, number: int, seed: int) -> Stage:
    """So many wrong requests, some at the same time. Every reply is JSON that says what is wrong, or ends there."""
    stage = Stage()

    async def ask(index: int) -> None:
        drawn = random.Random((seed << 32) + index)
        request = hostile_request(drawn)
        if b"content-length: 1000000000000" in request or b"content-length: -1" in request:
            drawn.random = lambda: 0.99  # type: ignore[method-assign]
        status, body = await send(port, request, drawn)
        stage.statuses[status] += 1
        if status == "hung" or status == "500" or (status[0] == "4" and body.startswith(b"{") and b"Traceback" in body):
            stage.wrong.append(f"request {index}: {status} {body[:200]!r}")

    await limited(32, (lambda index=index: ask(index) for index in range(number)))
    return stage


async def ordinary(port: int, number: int, check: Checker, clients: int = 16) -> Stage:
    """So many right requests; each accepted one is answered as it should be."""
    return await asking(port, iter(range(number)), check, clients)


async def overload(port: int, seconds: float, check: Checker, clients: int) -> Stage:
    """As many requests as these clients can send, more than the server takes, for so long."""
    until = time.monotonic() + seconds

    def numbers() -> Any:
        number = 0
        while time.monotonic() < until:
            yield number
            number += 1

    return await asking(port, numbers(), check, clients)


async def asking(port: int, numbers: Any, check: Checker, clients: int) -> Stage:
    stage = Stage()

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            verb = ("classify", "tag", "embed")[number % 3]
            body = json.dumps({"model": {"embed": "similar"}.get(verb, verb), "texts": TEXT}).encode()
            head = f"POST /v1/{verb} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            began = time.monotonic()
            writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            status, reply = await asyncio.wait_for(read_reply(reader), HANG_SECONDS)
            stage.statuses[status] += 1
            if status == "200":
                stage.slowest = max(stage.slowest, time.monotonic() - began)
                if not check(verb, json.loads(reply)["result"]):
                    stage.wrong.append(f"{verb} {number}: {reply[:200]!r}")
            elif status not in ("429", "503"):
                stage.wrong.append(f"{verb} {number}: {status} {reply[:200]!r}")
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return stage


def terminated_under_load(server: Server) -> list[str]:
    """SIGTERM while eight clients ask, and what was wrong then: each request that the server's log has as answered has
    its right answer at a client, once; others were refused, or never read; the exit code is 0."""
    answers: list[tuple[str, bool]] = []
    wrong: list[str] = []
    enough = threading.Event()
    check = expected_of()

    def ask(client: int) -> None:
        with httpx2.Client(timeout=HANG_SECONDS, base_url=server.address) as http:
            for number in itertools.count():
                name = f"{client}-{number}-before-the-end"
                body = {"model": "classify", "texts": TEXT}
                try:
                    reply = http.post("/v1/classify", json=body, headers={"x-request-id": name})
                except httpx2.ConnectError:
                    return  # it listens no more
                except httpx2.TransportError:
                    continue  # an idle connection that was closed while this was sent
                if reply.status_code == 200:
                    answers.append((name, check("classify", reply.json()["result"])))
                elif reply.status_code != 503 or reply.json()["error"]["type"] != "draining":
                    wrong.append(f"{name}: {reply.status_code} {reply.text[:200]}")
                if len(answers) >= 40:
                    enough.set()

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(8)]
    for thread in threads:
        thread.start()
    enough.wait(HANG_SECONDS)
    code = server.stop()
    for thread in threads:
        thread.join(HANG_SECONDS)
    wrong += [f"exit code {code}"] * (code != 0) + ["a client hangs"] * any(thread.is_alive() for thread in threads)
    wrong += [f"{name}: another answer" for name, right in answers if not right]
    logged = sorted(
        line["request_id"] for line in server.log() if line.get("status") == 200 and "-before-" in str(line)
    )
    if logged != sorted(name for name, _ in answers):
        wrong.append(f"{len(logged)} were answered by the log, {len(answers)} at the clients")
    return wrong


async def limited(at_once: int, calls: Any) -> None:
    """All calls, at most so many at the same time."""
    calls = iter(calls)

    async def worker() -> None:
        for call in calls:
            await call()

    workers: list[Awaitable[None]] = [worker() for _ in range(at_once)]
    await asyncio.gather(*workers)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hostile", type=int, default=10_000)
    parser.add_argument("--overload", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--ordinary", type=int, default=200_000)
    parser.add_argument("--clients", type=int, default=320, help="of the overload; the server takes 64")
    parser.add_argument("--terminations", type=int, default=20, help="how often SIGTERM ends a server under load")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, started(Path(folder), "--max-requests", "64") as server:
        process = psutil.Process(server.pid)
        stages: list[Stage] = []

        def run(name: str, stage: Awaitable[Stage]) -> None:
            stages.append(asyncio.run(stage))  # type: ignore[arg-type]
            memory.append(process.memory_info().rss / 1e6)
            print(stages[-1].line(name, memory[-1]), flush=True)

        memory: list[float] = [process.memory_info().rss / 1e6]
        check = expected_of()
        run("warm", ordinary(server.port, 300, check))
        run("hostile", hostile(server.port, options.hostile, options.seed))
        run("overload", overload(server.port, options.overload, check, options.clients))
        run("ordinary", ordinary(server.port, options.ordinary, check))
        code = server.stop()
    wrong = [line for stage in stages for line in stage.wrong]
    for number in range(options.terminations):
        with tempfile.TemporaryDirectory() as folder, started(Path(folder)) as server:
            wrong += [f"termination {number}: {line}" for line in terminated_under_load(server)]
    print(f"{options.terminations} terminations under load")
    grown = memory[-1] / memory[1]
    print(f"exit code {code}; memory {grown:.2f} times that after the first requests; {len(wrong):,} wrong")
    print("\n".join(wrong[:20]))
    return int(bool(wrong) or code != 0 or grown > 1.5)


if __name__ == "__main__":
    sys.exit(main())
