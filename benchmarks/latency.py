"""Latency of one short text, warm, against the engines people use: median and 99th percentile, in turns.

    python benchmarks/latency.py [--sizes minilm base] [--calls 100]

Also how long a cold `bothways classify MODEL "text"` takes, from the command to the answer, with --cold MODEL.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from common import show
from engines import engines, model_directory, temporary

import bothways as bw
from bothways.data.encoded import Encoded
from bothways.precision import choose_inference_precision

LENGTHS = (16, 128)
ROUNDS = 3


def compare(size: str, calls: int) -> None:
    with temporary() as name:
        folder = Path(name)
        directory = model_directory(size, folder)
        half = choose_inference_precision("auto", bw.load(directory, "cpu").device) == "bfloat16"
        generator = np.random.default_rng(0)
        sequences = {}
        for length in LENGTHS:
            ids = generator.integers(1000, 20000, length)
            sequences[length] = [Encoded(ids, np.zeros_like(ids), np.zeros((length, 2), dtype=np.int64))]
        kinds = {name: engine for name, engine in engines(directory, folder, half) if "streams" not in name}
        taken: dict[tuple[str, int], list[float]] = {(name, length): [] for name in kinds for length in LENGTHS}
        for turn in range(ROUNDS + 1):
            for name, engine in kinds.items():
                for length in LENGTHS:
                    for _ in range(10 if turn == 0 else calls // ROUNDS):
                        began = time.perf_counter()
                        engine(sequences[length])
                        if turn:
                            taken[name, length].append((time.perf_counter() - began) * 1e3)
        rows = []
        for name in kinds:
            row: list[object] = [name]
            for length in LENGTHS:
                median, slow = np.quantile(taken[name, length], [0.5, 0.99])
                row += [float(median), float(slow)]
            rows.append(row)
        header = ["engine", *(f"{length} tokens, {what}, ms" for length in LENGTHS for what in ("p50", "p99"))]
        show(f"latency-{size}", header, rows, calls=calls)


def cold(model: str) -> None:
    rows = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "bothways.cli", "classify", model, "No light on my router"], check=True,
            capture_output=True,
        )  # fmt: skip
        rows.append([time.perf_counter() - began])
    show("latency-cold", ["seconds"], rows, model=model)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["minilm", "base"], choices=["minilm", "base", "large"])
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--cold", metavar="MODEL")
    arguments = parser.parse_args()
    if arguments.cold:
        cold(arguments.cold)
    else:
        for size in arguments.sizes:
            compare(size, arguments.calls)
