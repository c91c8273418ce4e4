"""What a Ray cluster costs: `--on ray` on one node beside the same command without, and what more nodes bring.

    python benchmarks/cluster.py --minutes 12

Nodes have one core each, and the local verb one process, so that one node is compared with one process. Start-up is the
time of the command until a cluster that is there has made the only part of a small text or table. 200 MB of text and
300,000 rows, unless they are too much for the minutes: then both are scaled down by one factor, which is said, as is
what fails or finds no time; the tables have what was measured. Needs the extra `ray`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import show

os.environ.update(OMP_NUM_THREADS="1", RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0")
SENTENCE = "the router has a red light and no line since the storm of last week please send someone soon"
WORDS = SENTENCE.split()
PROBE_MB, PROBE_ROWS = 4, 4_000  # from which the time of the whole is foreseen
CLUSTER_SECONDS = 25.0  # in which one is started and ended, about
RAY_START = 2.0  # times the start of a command here, what it takes on Ray before its first part, about
MARGIN = 1.4  # of what is foreseen: machines are shared, and Ray takes something
JOBS = ("prepare", "embed")


class PartError(Exception):
    """A command that failed, or found no time."""


def write_texts(path: Path, megabytes: float) -> None:
    """JSON lines of about a kilobyte, different ones."""
    with path.open("w") as file:
        number = 0
        while file.tell() < megabytes * 1e6:
            sentences = (" ".join(WORDS[(number + k * n) % len(WORDS)] for n in range(12)) for k in range(1, 15))
            file.write(json.dumps({"text": ". ".join(sentences) + f". {number}."}) + "\n")
            number += 1


def write_rows(path: Path, rows: int) -> None:
    """JSON lines of a sentence each."""
    with path.open("w") as file:
        for number in range(rows):
            text = " ".join(WORDS[(number * k) % len(WORDS)] for k in range(1, 5 + number % 20))
            file.write(json.dumps({"id": number, "text": text}) + "\n")


@dataclass
class Bench:
    """The commands, and their files in a folder. ends: by `time.monotonic`, when the last command has to end. said:
    what failed or was left out."""

    folder: Path
    ends: float
    model: str
    said: list[str] = field(default_factory=list)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.ends - time.monotonic()

    def command(self, *words: Any, address: str = "") -> float:
        """Seconds of a command of Bothways. address: of the cluster, for `--on ray`. Raises PartError where it fails or
        takes longer than is left; it is ended then, with all that it started."""
        shown = f"{words[0]} {' '.join(map(str, words[-2:]))}"
        if self.left < 1:
            raise PartError(f"{shown}: no time is left for it")
        with (self.folder / "errors.txt").open("w+") as errors:
            began = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, "-m", "bothways.cli", *map(str, words)],
                stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True,
                env={**os.environ, "RAY_ADDRESS": address},
            )  # fmt: skip
            try:
                code = process.wait(self.left)
            except subprocess.TimeoutExpired:
                raise PartError(f"{shown}: ended after {time.perf_counter() - began:.0f} s, no time was left") from None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            seconds = time.perf_counter() - began
            errors.seek(0)
            if code:
                raise PartError(f"{shown}: exit code {code}: {(errors.read().strip().splitlines() or ['nothing'])[-1]}")
        return seconds

    def make(self, job: str, source: str, name: str, *more: Any, address: str = "") -> float:
        """Seconds of preparing texts or embedding rows. source: `small`, `probe` or `whole`."""
        if job == "prepare":
            words = ["prepare", self.folder / f"{source}-texts.jsonl", "--tokenizer", self.folder / "vocabulary"]
        else:
            words = ["embed", self.model, "--in", self.folder / f"{source}-rows.jsonl"]
        return self.command(*words, "--out", self.folder / self.result(job, name), *more, address=address)

    def here(self, job: str, source: str) -> float:
        """Seconds of a job in one process of this machine."""
        workers = ["--workers", 1] if job == "prepare" else []
        return self.make(job, source, f"{source}-here", *workers)

    def result(self, job: str, name: str) -> str:
        """What a job makes."""
        return f"{name}-store" if job == "prepare" else f"{name}-vectors.parquet"

    def same(self, job: str, name: str, other: str) -> bool:
        """Whether two results are the same bytes."""
        return _contents(self.folder / self.result(job, name)) == _contents(self.folder / self.result(job, other))

    def say(self, text: str) -> None:
        """Print what is not as it was asked for, now and at the end."""
        self.said.append(text)
        print(text, flush=True)

    @contextmanager
    def survived(self) -> Iterator[None]:
        """A part of the benchmark that may fail: what it says is printed, and the others go on."""
        try:
            yield
        except Exception as error:
            self.say(str(error) if isinstance(error, PartError) else f"{type(error).__name__}: {error}")


def _contents(path: Path) -> dict[str, bytes]:
    paths = [path] if path.is_file() else sorted(path.rglob("*.*"))
    return {"" if each == path else each.name: each.read_bytes() for each in paths}


def made_ready(bench: Bench) -> dict[str, float]:
    """A vocabulary, a model of the size tiny where none is named, small files; returns the seconds of a small job."""
    for source, megabytes, rows in (("small", 0.01, 10), ("probe", PROBE_MB, PROBE_ROWS)):
        write_texts(bench.folder / f"{source}-texts.jsonl", megabytes)
        write_rows(bench.folder / f"{source}-rows.jsonl", rows)
    texts = bench.folder / "small-texts.jsonl"
    bench.command("tokenizer", texts, "--vocab-size", 100, "--out", bench.folder / "vocabulary")
    seconds = {"prepare": bench.here("prepare", "small")}
    if not bench.model:
        bench.model, store = str(bench.folder / "model"), bench.folder / bench.result("prepare", "small-here")
        training = ["--size", "tiny", "--steps", 1, "--tokens-per-step", 1024]
        bench.command("pretrain", store, *training, "--out", bench.model)
    return {**seconds, "embed": bench.here("embed", "small")}


def planned(
    bench: Bench, small: dict[str, float], asked: dict[str, float], nodes: list[int]
) -> tuple[list[int], dict[str, float]]:
    """The numbers of nodes and the sizes that there is time for, which is said where it is less than what was asked.

    small: seconds of a small job, by job.
    """
    per_unit = {
        job: max(0.05, bench.here(job, "probe") - small[job]) / probe
        for job, probe in zip(JOBS, (PROBE_MB, PROBE_ROWS), strict=True)
    }
    starts, kept = sum(small.values()), list[int]()
    for number in nodes:
        cost = CLUSTER_SECONDS + 2 * RAY_START * sum(small.values())  # of a small and a whole one of each job
        if starts + cost < 0.8 * bench.left:
            starts += cost
            kept.append(number)
    if kept != nodes:
        bench.say(f"left out for want of time: {', '.join(map(str, nodes[len(kept) :]))} nodes")
    rounds = 1 + sum(1 / min(number, os.cpu_count() or 1) for number in kept)
    working = sum(per_unit[job] * size for job, size in asked.items()) * rounds * MARGIN
    print(f"foreseen: {starts + working:.0f} s; {bench.left:.0f} s are left", flush=True)
    factor = min(1.0, max(0.0, bench.left - starts) / working)
    sizes = {job: size * factor for job, size in asked.items()}
    if factor < 1:
        print(f"scaled by {factor:.3f}: {sizes['prepare']:.1f} MB of text and {sizes['embed']:,.0f} rows", flush=True)
    return kept, sizes


def on_nodes(bench: Bench, nodes: int) -> dict[str, float]:
    """Seconds of the jobs on a cluster of so many nodes of a core, by what they are of."""
    from ray.cluster_utils import Cluster

    found: dict[str, float] = {}
    began = time.perf_counter()
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
        found["cluster"] = time.perf_counter() - began
        for source in ("small", "whole"):
            for job in JOBS:
                with bench.survived():
                    name = f"{source}-{nodes}"
                    found[f"{source} {job}"] = bench.make(job, source, name, "--on", "ray", address=cluster.address)
                    if not bench.same(job, name, f"{source}-here"):
                        raise PartError(f"{job} on {nodes} nodes: the result is not the one of this machine")
    finally:
        cluster.shutdown()
    return found


def tables(sizes: dict[str, float], small: dict[str, float], here: dict[str, float], there: dict[int, Any]) -> None:
    """Print what was measured, and leave it in results/. small, here: seconds on this machine, by job. there: of
    `on_nodes`, by number of nodes."""
    cores = f"{os.cpu_count()} cores"
    starts = [
        [
            nodes,
            found.get("cluster", "-"),
            *(cell for job in JOBS for cell in (small[job], found.get(f"small {job}", "-"))),
        ]
        for nodes, found in there.items()
    ]
    beside = ["here, s", "--on ray, s"]
    header = ["nodes", "a cluster started, s", *(f"{job} {what}" for job in JOBS for what in beside)]
    show("cluster-start", header, starts, cores=cores)
    units = {"prepare": "MB", "embed": "rows"}
    if 1 in there:
        rows = [
            [job, f"{sizes[job]:,.0f} {units[job]}", *_beside(here.get(job), there[1].get(f"whole {job}"))]
            for job in JOBS
        ]
        show("cluster-overhead", ["job", "of", "one process, s", "one node, s", "overhead"], rows, cores=cores)
    scaling = []
    for nodes, found in there.items():
        row: list[Any] = [nodes]
        for job in JOBS:
            seconds, first = found.get(f"whole {job}"), there.get(1, {}).get(f"whole {job}")
            row += [
                seconds or "-",
                sizes[job] / seconds if seconds else "-",
                first / seconds if first and seconds else "-",
            ]
        scaling.append(row)
    rates = (f"{job}{what}" for job in JOBS for what in (", s", f", {units[job]}/s", ", times one node"))
    show("cluster-nodes", ["nodes of a core", *rates], scaling, cores=cores)
    if there and max(there) + 1 > (os.cpu_count() or 1):
        print(f"\n{cores} here: more nodes than that, with the driver's, cannot be faster")


def _beside(here: float | None, there: float | None) -> list[Any]:
    return [here or "-", there or "-", f"{there / here - 1:+.0%}" if here and there else "-"]


def run(bench: Bench, asked: dict[str, float], nodes: list[int]) -> None:
    """All of it."""
    small = made_ready(bench)
    nodes, sizes = planned(bench, small, asked, nodes)
    write_texts(bench.folder / "whole-texts.jsonl", sizes["prepare"])
    write_rows(bench.folder / "whole-rows.jsonl", int(sizes["embed"]))
    here: dict[str, float] = {}
    there: dict[int, dict[str, float]] = {}
    for job in JOBS:
        with bench.survived():
            here[job] = bench.here(job, "whole")
            print(f"{job}, one process: {here[job]:.1f} s", flush=True)
    for number in nodes:
        with bench.survived():
            there[number] = on_nodes(bench, number)
            print(f"{number} nodes: {json.dumps(there[number])}", flush=True)
    tables(sizes, small, here, there)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--text-mb", type=float, default=200)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--model", default="", help="by default one of the size tiny, made for it")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), time.monotonic() + 60 * chosen.minutes, chosen.model)
        with bench.survived():
            run(bench, {"prepare": chosen.text_mb, "embed": chosen.rows}, chosen.nodes)
    if bench.said:
        print("\nfailed or left out:", *bench.said, sep="\n  ")
    return 1 if bench.said else 0


if __name__ == "__main__":
    sys.exit(main())
