"""SIGTERM in the middle of load: whether every request that was accepted is answered once.

    python -m tests.serve.drain --times 20

Each time a server of its own is asked by eight clients when the signal comes. The servers are forks of this process, so
that what takes longest, to load libraries, is done once. All load stays on loopback; the exit code is 1 where something
was wrong.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"  # what forks must have no threads of its own, torch is imported behind this

import httpx2

from tests.serve.load import HANG_SECONDS
from tests.serve.serving import TEXT, Server, answering, expected_of, forked, write_models

CLIENTS = 8
ANSWERS = 40  # before the signal


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
                if len(answers) >= ANSWERS:
                    enough.set()

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(CLIENTS)]
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


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    times = parser.parse_args(arguments).times
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder))
        for number in range(times):
            with answering(forked(Path(folder))) as server:
                found = terminated_under_load(server)
            answered = sum(line.get("status") == 200 for line in server.log())
            wrong += [f"time {number + 1}: {line}" for line in found]
            print(f"time {number + 1} of {times}: {answered} were accepted, {len(found)} wrong", flush=True)
    print("\n".join(wrong[:20]))
    print(f"{times} terminations under load, {len(wrong)} wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
