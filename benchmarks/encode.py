"""Throughput of inference against the engines people use: 600 ragged texts, real tokens a second, in turns.

    python benchmarks/encode.py [--sizes minilm base] [--rounds 3] [--texts 600] [--leave-out streams …]
    python benchmarks/encode.py --quality          # of MiniLM in each precision on a real task

Beside every speed stands the least cosine of a text's vector with `transformers` in float32.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
from common import minilm, shared_data, show
from engines import engines, model_directory, temporary, texts
from finetune import stsb

import bothways as bw
from bothways.data.encoded import join_segments
from bothways.precision import PRECISIONS, choose_inference_precision
from bothways.tasks.metrics import correlations


def compare(size: str, number: int, rounds: int, left_out: list[str]) -> None:
    with temporary() as name:
        folder = Path(name)
        directory = model_directory(size, folder)
        model = bw.load(directory, "cpu")
        lines = texts(shared_data(), number)
        began = time.perf_counter()
        encoded = join_segments(model.tokenizer, lines, 256)
        tokenising = time.perf_counter() - began
        lengths = [len(sequence.input_ids) for sequence in encoded]
        tokens = sum(lengths)
        every = engines(directory, folder, choose_inference_precision("auto", model.device) == "bfloat16")
        contestants = {name: engine for name, engine in every if not any(part in name for part in left_out)}
        rates: dict[str, list[float]] = {name: [] for name in contestants}
        vectors = {}
        for engine in contestants.values():  # warm
            engine(encoded[:64])
        for _ in range(rounds):
            for name, engine in contestants.items():
                began = time.perf_counter()
                vectors[name] = engine(encoded)
                rates[name].append(tokens / (time.perf_counter() - began))
        exact = next(iter(vectors.values()))  # transformers' in float32
        best = {
            kind: max(statistics.median(r) for n, r in rates.items() if kind in n and not n.startswith("Bothways"))
            for kind in ("float32", "bfloat16", "int8")
            if any(kind in n for n in rates)
        }
        rows = []
        for name, found in rates.items():
            median = statistics.median(found)
            kind = next(kind for kind in best if kind in name)
            cosine = float((vectors[name] * exact).sum(1).min())
            rows.append([name, median, median / best[kind], f"{min(found):,.0f}–{max(found):,.0f}", f"{cosine:.5f}"])
        show(
            f"encode-{size}",
            ["engine", "tokens/s", "of the best peer's in this precision", "slowest–fastest turn", "least cosine"],
            rows,
            texts=number, tokens=tokens, longest=max(lengths), rounds=rounds,
            tokenising_tokens_per_second=tokens / tokenising,
        )  # fmt: skip
        print(f"\n{tokens:,} tokens, {tokens / number:.0f} a text; tokenising {tokens / tokenising:,.0f} tokens/s")
        assert np.isfinite(exact).all()


def quality() -> None:
    """Spearman of the cosines with the scores of STS-B's development part, as they come out in each precision."""
    _, pairs = stsb(shared_data())
    first, second = ([row[side] for row in pairs] for side in ("text", "pair"))
    scores = [row["score"] for row in pairs]
    rows = []
    for precision in PRECISIONS:
        model = bw.load(minilm(), "cpu", precision)
        cosines = (model.embed(first) * model.embed(second)).sum(1)
        rows.append([precision, correlations(scores, cosines.tolist())["spearman"]])
    show("encode-quality", ["precision", "Spearman"], rows, pairs=len(pairs))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["minilm", "base"], choices=["minilm", "base", "large"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=600)
    parser.add_argument("--leave-out", nargs="+", default=[], help="engines, by a part of their names")
    parser.add_argument("--quality", action="store_true")
    arguments = parser.parse_args()
    if arguments.quality:
        quality()
        raise SystemExit
    for size in arguments.sizes:
        compare(size, arguments.texts, arguments.rounds, arguments.leave_out)
