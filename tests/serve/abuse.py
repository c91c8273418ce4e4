"""Hostile and malformed requests, overload, then ordinary ones: whether a server stays right, bounded and alive.

    python -m tests.serve.abuse --minutes 40
    python -m tests.serve.abuse --minutes 2 --scale 0.01

starts `bothways serve` on loopback with small models: 300 requests to warm up, 4,000 of schemathesis from our OpenAPI,
10,000 hostile ones, a minute of five times as many clients as it takes, 200,000 ordinary requests; then 1,000 requests
of every kind over three models at the same time, and twenty servers that are ended under load. It prints a table: a
row a stage with its replies by status, how slow the accepted ones were, and the server's memory behind it. All load
stays on this machine and is bounded in number and time; a stage that time cuts short says how far it came. The exit
code is 1 where an accepted answer was wrong, a reply had no known shape, memory grew, something hung, or an end was not
clean.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import torch

from tests.serve import drain
from tests.serve.hostile import hostile
from tests.serve.load import Stage, mixed, ordinary, overload
from tests.serve.schema_cases import from_schema
from tests.serve.serving import Server, expected_of, started

TAKEN = 64  # requests at a time
MAX_GROWTH = 1.5  # of memory, behind the first requests
COLUMNS = "{:<12} {:>15} {:>9} {:>9} {:>8} {:>6}  {}"


def row(name: str, stage: Stage, megabytes: float) -> str:
    number = f"{stage.number:,}" + (f" of {stage.planned:,}" if stage.number < stage.planned else "")
    counts = ", ".join(f"{status} {count:,}" for status, count in sorted(stage.statuses.items()))
    slow = [f"{stage.quantile(share) * 1e3:,.0f}" if stage.latencies else "" for share in (0.99, 1.0)]
    return COLUMNS.format(name, number, *slow, f"{megabytes:,.0f}", len(stage.wrong), counts)


class Report:
    """The stages' rows, printed as they are made, and what was wrong."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        print(COLUMNS.format("stage", "requests", "p99, ms", "most, ms", "MB", "wrong", "replies"), flush=True)

    def run(self, name: str, server: Server, stage: Awaitable[Stage]) -> float:
        """Run a stage, and give the server's memory behind it, in MB."""
        done = asyncio.run(stage)  # type: ignore[arg-type]
        megabytes: float = psutil.Process(server.pid).memory_info().rss / 1e6
        print(row(name, done, megabytes), flush=True)
        self.wrong += [f"{name}: {line}" for line in done.wrong]
        if not done.statuses["200"] and name != "hostile":
            self.wrong.append(f"{name}: nothing was accepted")
        return megabytes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="in which all stages end")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the numbers and seconds")
    parser.add_argument("--only", nargs="+", choices=["schema", "hostile", "overload", "ordinary", "mixed", "drain"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # as the servers have; the last bits of a step of generation depend on it
    until = time.monotonic() + 60 * options.minutes
    report = Report()

    def scaled(number: float) -> int:
        return max(1, round(number * options.scale))

    def wanted(*names: str) -> bool:
        return not options.only or any(name in options.only for name in names)

    if wanted("schema", "hostile", "overload", "ordinary"):
        with tempfile.TemporaryDirectory() as folder, started(Path(folder), "--max-requests", str(TAKEN)) as server:
            stages: dict[str, Callable[[], Awaitable[Stage]]] = {
                "schema": lambda: from_schema(server.address, scaled(4_000), options.seed, until),
                "hostile": lambda: hostile(server.port, scaled(10_000), options.seed, until),
                "overload": lambda: overload(
                    server.port, min(max(5, scaled(60)), until - time.monotonic()), check, clients=5 * TAKEN
                ),
                "ordinary": lambda: ordinary(server.port, scaled(200_000), check, until=until),
            }
            check = expected_of()
            start = psutil.Process(server.pid).memory_info().rss / 1e6
            memory = [report.run("warm", server, ordinary(server.port, 300, check))]
            memory += [report.run(name, server, stage()) for name, stage in stages.items() if wanted(name)]
            code = server.stop()
        print(f"memory: {start:,.0f} MB at the start, {memory[0]:,.0f} MB warm, {memory[-1]:,.0f} MB at the end")
        report.wrong += [f"exit code {code}"] * (code != 0)
        report.wrong += ["memory grew"] * (memory[-1] > MAX_GROWTH * memory[0])
    if wanted("mixed"):
        with tempfile.TemporaryDirectory() as folder, started(Path(folder), "--max-requests", "2000") as server:
            report.run("mixed", server, mixed(server.port, scaled(1_000), options.seed, until))
            code = server.stop()
        report.wrong += [f"mixed: exit code {code}"] * (code != 0)
    if wanted("drain"):
        command = [sys.executable, "-m", drain.__name__, "--times", str(scaled(20))]
        try:
            code = subprocess.run(command, timeout=max(1.0, until - time.monotonic())).returncode
            report.wrong += ["drain: something was wrong"] * (code != 0)
        except subprocess.TimeoutExpired:
            print("drain: cut short, no time was left")
    print("\n".join(report.wrong[:20]))
    print(f"{len(report.wrong):,} wrong")
    return int(bool(report.wrong))


if __name__ == "__main__":
    sys.exit(main())
