"""What a Ray cluster costs: `--on ray` on one node beside the same command without, and what more nodes bring.

    python benchmarks/cluster.py --text-mb 200 --rows 300000 --nodes 1 2 3

Nodes have one core each, and the local verb one process, so that one node is compared with one process. Start-up is the
time until a cluster that is there has made the only part of a small text. Needs the extra `ray`; prints JSON lines.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0")
SENTENCE = "the router has a red light and no line since the storm of last week please send someone soon"
WORDS = SENTENCE.split()


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


def timed(*words: Any, address: str = "") -> float:
    """Seconds of a command. address: of the cluster, for `--on ray`."""
    command = [sys.executable, "-m", "bothways.cli", *map(str, words)]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "RAY_ADDRESS": address})
    return time.perf_counter() - began


class Bench:
    """The commands, and their files in a folder."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.folder, self.model = folder, arguments.model
        write_texts(folder / "small.jsonl", 0.01)
        write_texts(folder / "texts.jsonl", arguments.text_mb)
        write_rows(folder / "rows.jsonl", arguments.rows)
        timed("tokenizer", folder / "small.jsonl", "--vocab-size", 300, "--out", folder / "vocabulary")

    def prepare(self, source: str, name: str, *more: Any, address: str = "") -> float:
        """Seconds of preparing."""
        vocabulary, out = self.folder / "vocabulary", self.folder / name
        return timed("prepare", self.folder / source, "--tokenizer", vocabulary, "--out", out, *more, address=address)

    def embed(self, name: str, *more: Any, address: str = "") -> float:
        """Seconds of embedding."""
        model = ["--model", self.model] if self.model else []
        words = [*model, "--in", self.folder / "rows.jsonl", "--out", self.folder / name, *more]
        return timed("embed", *words, address=address)

    def same(self, name: str, other: str) -> bool:
        """Whether two results are the same bytes."""
        paths = [self.folder / name, self.folder / other]
        if paths[0].is_file():
            return paths[0].read_bytes() == paths[1].read_bytes()
        stores = [{path.name: path.read_bytes() for path in sorted(store.rglob("*.*"))} for store in paths]
        return stores[0] == stores[1]


def on_nodes(bench: Bench, nodes: int) -> dict[str, Any]:
    """The jobs on a cluster of so many nodes of a core, whose results are compared with the local ones."""
    from ray.cluster_utils import Cluster

    began = time.perf_counter()
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(nodes):
        cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    started = time.perf_counter() - began
    try:
        found = {
            "nodes": nodes,
            "cluster_seconds": started,
            "start_up_seconds": bench.prepare("small.jsonl", f"small{nodes}", "--on", "ray", address=cluster.address),
            "prepare_seconds": bench.prepare("texts.jsonl", f"store{nodes}", "--on", "ray", address=cluster.address),
            "embed_seconds": bench.embed(f"rows{nodes}.jsonl", "--on", "ray", address=cluster.address),
        }
    finally:
        cluster.shutdown()
    same = bench.same(f"store{nodes}", "store") and bench.same(f"rows{nodes}.jsonl", "rows-here.jsonl")
    return {**found, "same_bytes": same}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text-mb", type=float, default=200)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--model", help="by default the shipped one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments)
        here = {
            "nodes": 0,
            "start_up_seconds": bench.prepare("small.jsonl", "small", "--workers", 1),
            "prepare_seconds": bench.prepare("texts.jsonl", "store", "--workers", 1),
            "embed_seconds": bench.embed("rows-here.jsonl"),
        }
        print(json.dumps(here), flush=True)
        for nodes in arguments.nodes:
            there = on_nodes(bench, nodes)
            for name in ("prepare", "embed"):
                there[f"{name}_beside_local"] = there[f"{name}_seconds"] / here[f"{name}_seconds"]
            print(json.dumps(there), flush=True)


if __name__ == "__main__":
    main()
