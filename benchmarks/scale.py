"""What grows with the data and with the processes: the plan of pretraining at 10^10 sequences and 4,096 ranks, a
manifest of 10^6 parts, and what jobs of that size cost. `docs/scale.md` shows the tables.

    python benchmarks/scale.py [--sequences 1e10] [--ranks 4096] [--parts 1e6] [--tiny]

Plan, sharing and manifests are Bothways' own; simulated is only the text: a split of so many chunks that each of them
is one of a few. Times are of this process's CPU, so that others on the machine do not count. What is not measured here
is in the constants below, each with where it comes from.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import show

from bothways.data.masking import Masking
from bothways.data.micro_batches import deal_out, share_among_ranks
from bothways.data.plan import BLOCK_TOKENS, ExampleBlock, PretrainingPlan
from bothways.data.spans import SpanOptions
from bothways.data.store import CHUNK_TOKENS, Chunk
from bothways.data.store_writer import SHARD_TOKENS
from bothways.files import read_json, write_json
from bothways.tasks.objectives import find_pretraining
from bothways.text.tokenizer import Tokenizer
from bothways.text.tokenizer_backend import SPECIAL_TOKENS

SEQUENCE_LENGTH = 128
DOCUMENT_TOKENS, SENTENCE_TOKENS = 600, 22  # means, as in the articles of an encyclopedia
POOL = 256  # chunks that differ: more than a block has
MARKERS = 5_000  # completion markers that are written, to scale up from


class SimulatedSplit:
    """A split of so many tokens, whose chunks are those of a small pool in turn."""

    def __init__(self, tokens: int) -> None:
        self.num_chunks = max(1, tokens // CHUNK_TOKENS)
        self.tokens = self.num_chunks * CHUNK_TOKENS
        self.documents = self.tokens // DOCUMENT_TOKENS
        rng = np.random.default_rng(0)
        self._pool = [_random_chunk(rng) for _ in range(min(POOL, self.num_chunks))]

    def chunk(self, index: int) -> Chunk:
        return self._pool[index % len(self._pool)]

    def chunks(self, indexes: Sequence[int]) -> list[Chunk]:
        return [self.chunk(index) for index in indexes]


def _random_chunk(rng: np.random.Generator) -> Chunk:
    lengths = np.maximum(1, rng.lognormal(np.log(SENTENCE_TOKENS) - 0.18, 0.6, CHUNK_TOKENS // SENTENCE_TOKENS))
    sentences = np.concatenate([[0], np.cumsum(lengths.astype(np.int64))])
    per_document = DOCUMENT_TOKENS // SENTENCE_TOKENS
    documents = np.append(np.arange(0, len(sentences) - 1, per_document), len(sentences) - 1)
    return Chunk(rng.integers(200, 30_000, sentences[-1]).astype(np.uint16), sentences, documents)


class SimulatedStore:
    """What a plan asks of a token store."""

    directory, fingerprint, tokenizer_fingerprint, vocab_size = Path("simulated"), "simulated", "simulated", 30_522

    def __init__(self, tokens: int) -> None:
        self._split = SimulatedSplit(tokens)

    def split(self, name: str) -> SimulatedSplit:
        return self._split

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_pieces([*SPECIAL_TOKENS, *(f"w{n}" for n in range(self.vocab_size - 5))])


def plan_of(store: SimulatedStore, objective: str, tokens_per_step: int, block_tokens: int) -> PretrainingPlan:
    maker = find_pretraining(objective).make_examples(SpanOptions(SEQUENCE_LENGTH), Masking(), store.tokenizer())
    simulated: Any = store
    return PretrainingPlan(simulated, maker, tokens_per_step=tokens_per_step, seed=0, block_tokens=block_tokens)


def measured(function: Callable[[], Any]) -> tuple[Any, float]:
    """What a function gives, and the CPU seconds of this thread that it takes."""
    began = time.thread_time()
    made = function()
    return made, time.thread_time() - began


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def imbalance(values: np.ndarray) -> float:
    """How much more than the mean the largest one is; its process is waited for by all others."""
    return float(values.max() / values.mean() - 1)


def simulate_plan(sequences: int, ranks: int, block_tokens: int) -> None:
    """Start-up, blocks and a step of the plan, and how even its shares are."""
    before = peak_megabytes()
    store = SimulatedStore(sequences * SEQUENCE_LENGTH)
    split = store.split("train")
    simulated = peak_megabytes()
    rows: list[list[Any]] = [["chunks to shuffle", f"{split.num_chunks:,}"]]
    plan, seconds = measured(lambda: plan_of(store, "mlm", ranks * 16_384, block_tokens))
    rows += [["blocks of an epoch", f"{plan.num_blocks:,}"], ["the plan is made, seconds", round(seconds, 2)]]
    block, seconds = measured(lambda: plan.block(0, 0))
    rows.append(["the first block, with the epoch's order, seconds", round(seconds, 2)])
    rows.append(["memory for plan, order and block, MB", round(peak_megabytes() - simulated)])
    middle = {"step": 10**6, "epoch": 0, "block": plan.num_blocks // 2, "example": len(block) // 2}
    plan.restore(middle)
    _, seconds = measured(lambda: plan.block(0, middle["block"]))
    rows.append(["a later block, seconds", round(seconds, 2)])
    (parts, _), making = measured(lambda: plan._examples_of_step(plan.cursor(0)))
    examples, joining = measured(lambda: ExampleBlock.join(parts))
    rows.append([f"a step of {ranks:,} × 16,384 tokens: its {len(parts)} blocks, seconds", round(making, 2)])
    rows.append([f"its {len(examples):,} examples joined, seconds", round(joining, 2)])
    _, seconds = measured(lambda: share_among_ranks(examples.lengths, ranks - 1, ranks, 16_384))
    rows.append(["one rank's share of them, seconds", round(seconds, 2)])
    rows.append(["peak memory of all of it, MB", round(peak_megabytes() - before)])
    show("scale-plan", ["plan", f"{sequences:.0e} sequences"], rows)

    table = []
    for tokens in (2048, 4096, 8192, 16_384):
        number = int(np.searchsorted(examples.ends, ranks * tokens, side="right"))
        lengths = examples.lengths[:number]
        shares = _tokens_by_rank(lengths, ranks)
        made = {len(share_among_ranks(lengths, rank, ranks, 16_384)) for rank in (0, 1, ranks // 2, ranks - 1)}
        assert len(made) == 1, "ranks of one step with other numbers of micro-batches"
        table.append([f"{tokens:,}", f"{number:,}", int(shares.min()), int(shares.max()), f"{imbalance(shares):.2%}"])
    show("scale-balance", ["tokens a rank", "examples", "fewest", "most", "most over mean"], table)


def _tokens_by_rank(lengths: np.ndarray, ranks: int) -> np.ndarray:
    dealt = deal_out(lengths, ranks)
    return np.where(dealt >= 0, lengths[dealt], 0).sum(axis=0)


def block_rates(block_tokens: int) -> dict[str, float]:
    """Tokens a second of which one process makes examples, by objective: what all processes together may train on."""
    rates, rows = {}, []
    for objective in ("bert", "mlm", "causal"):
        plan = plan_of(SimulatedStore(4 * block_tokens), objective, 1 << 17, block_tokens)
        plan.block(0, 0)
        block, seconds = measured(lambda plan=plan: plan.block(0, 1))
        rates[objective] = int(block.ends[-1]) / seconds
        rows.append([objective, round(rates[objective] / 1e6, 1)])
    show("scale-blocks", ["objective", "million tokens/s that a process can make"], rows)
    return rates


def simulate_manifest(parts: int, workers: int) -> None:
    """A manifest of so many parts, and the markers of some of them."""
    listed = [{"source": number // 100, "begin": number << 20, "end": (number + 1) << 20} for number in range(parts)]
    before = peak_megabytes()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "manifest.json"
        _, writing = measured(lambda: write_json(path, {"parts": listed}))
        size = path.stat().st_size / 1e6
        found, reading = measured(lambda: read_json(path))
        memory = peak_megabytes() - before
        assert len(found["parts"]) == parts
        del found
        markers = min(MARKERS, parts)

        def mark() -> None:
            for number in range(markers):
                write_json(Path(name) / f"{number:08d}.json", {"rows": 1000})

        began = time.perf_counter()
        mark()
        marking = (time.perf_counter() - began) / markers
        _, listing = measured(lambda: sorted(Path(name).glob("[0-9]*.json")))
    numbers = np.bincount(np.arange(parts) % workers, minlength=workers)
    rows = [
        ["manifest, MB", round(size)],
        ["written, seconds", round(writing, 1)],
        ["read, seconds: at the start of every worker", round(reading, 1)],
        ["memory that takes, MB", round(memory)],
        ["a marker on this disk, milliseconds", round(1000 * marking, 2)],
        ["the folder of all markers listed, seconds", round(listing / markers * parts, 1)],
        [f"parts of a worker of {workers:,}, most over mean", f"{imbalance(numbers):.2%}"],
    ]
    show("scale-manifest", ["manifest", f"{parts:,} parts"], rows)


# What is assumed. Prices are round ones of late 2025, in dollars, and differ by a factor of two between vendors.
GPU_HOUR = {"H100": 3.0, "A100": 1.8}
CORE_HOUR, TERABYTE_MONTH = 0.05, 23.0
PEAK = {"H100": 989e12, "A100": 312e12}  # dense bfloat16 FLOP/s, by the data sheets
# Published for GPTs of 125 and 350 million parameters at 512 tokens on eight A100: mosaicml/llm-foundry,
# scripts/train/benchmarking (40.3 and 48.4 %). For H100 it has 40.4 % at 760 million, where A100 has 53.5 %; that ratio
# is applied to the smaller ones.
MFU = {("A100", "base"): 0.40, ("A100", "large"): 0.48, ("H100", "base"): 0.30, ("H100", "large"): 0.36}
ENCODE_MFU = 0.30  # of embedding on a GPU: assumed, no figure of ours
# Measured by us on two cores (docs/benchmarks.md).
PREPARE_BYTES, EMBED_TOKENS, TOKENISE_TOKENS, CORES = 4.1e6, 7_076, 530_000, 2
BYTES_A_TOKEN, STORED_A_TOKEN = 4.7, 2.1  # of 120 articles of Wikipedia, 30,522 pieces; of a store with 16-bit ids
CORES_BESIDE_GPU = 16  # as the usual machines of eight have, which tokenise for it
LINKS, DISK_BYTES = (25, 100, 400), 1e9  # Gbit/s of each GPU to the others; bytes/s of the disk or store
ROW_TOKENS, VECTOR = 50, 384  # of the texts that were measured; MiniLM's vectors, 16 bits each where stored


@dataclass(frozen=True)
class Size:
    """Layers, hidden and intermediate size, and parameters of a model with 30,522 pieces."""

    layers: int
    hidden: int
    intermediate: int
    parameters: float

    def forward(self, length: int, scored: float = 0.0) -> float:
        """FLOPs of a token (`bothways.train.flops`). scored: the share of tokens with scores over the vocabulary."""
        linear = 2 * self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.intermediate)
        head = 2 * scored * (self.hidden**2 + self.hidden * 30_522)
        return linear + 4 * self.layers * self.hidden * length + head


SIZES = {
    "base": Size(12, 768, 3072, 110e6),
    "large": Size(24, 1024, 4096, 335e6),
    "MiniLM": Size(6, 384, 1536, 22.7e6),
}


PRETRAINED = ("base", "large")


def tokens_per_second(card: str, size: str, length: int = 512) -> float:
    """Of one GPU in pretraining, at the assumed MFU."""
    return PEAK[card] * MFU[card, size] / (3 * SIZES[size].forward(length, 0.15))


def costs() -> None:
    """Hours and dollars of the jobs of `docs/scale.md`."""
    rows: list[list[Any]] = []

    def add(job: str, on: str, tokens: float, speed: float, price: float) -> None:
        hours = tokens / speed / 3600
        cells = (f"{speed:,.0f}", f"{hours:,.{int(hours < 10)}f}", f"{hours / 64:,.1f}", f"{hours * price:,.0f}")
        rows.append([job, on, *cells])

    for size in PRETRAINED:
        for card in PEAK:
            speed = tokens_per_second(card, size)
            add(f"BERT-{size}, 10^12 tokens in sequences of 512", card, 1e12, speed, GPU_HOUR[card])
    core = PREPARE_BYTES / CORES / BYTES_A_TOKEN
    add("1 TB of text, prepared", "a core", 1e12 / BYTES_A_TOKEN, core, CORE_HOUR)
    job, tokens = f"10^9 rows of {ROW_TOKENS} tokens, embedded by MiniLM", 1e9 * ROW_TOKENS
    add(job, "a core", tokens, EMBED_TOKENS / CORES, CORE_HOUR)
    for card in PEAK:
        speed = PEAK[card] * ENCODE_MFU / SIZES["MiniLM"].forward(ROW_TOKENS)
        tokenised = CORES_BESIDE_GPU * TOKENISE_TOKENS / CORES
        price = GPU_HOUR[card] + CORES_BESIDE_GPU * CORE_HOUR
        add(job, f"{card}, {CORES_BESIDE_GPU} cores", tokens, min(speed, tokenised), price)
    show("scale-costs", ["job", "on", "tokens/s", "hours", "hours on 64 of them", "dollars"], rows)


def storage() -> None:
    stored = {
        "1 TB of text": 1.0,
        "its token store": STORED_A_TOKEN / BYTES_A_TOKEN,
        "a store of 10^12 tokens": STORED_A_TOKEN,
        "10^9 vectors of 384 numbers, float16": 1e9 * VECTOR * 2 / 1e12,
        **{f"a checkpoint of {size}: weights and two moments": _checkpoint_bytes(size) / 1e12 for size in PRETRAINED},
    }
    rows = [[name, f"{size:.4f}", f"{size * TERABYTE_MONTH:.2f}"] for name, size in stored.items()]
    show("scale-storage", ["what", "TB", "dollars a month"], rows)


def limits(rates: dict[str, float]) -> None:
    """Where the plan, the exchange of gradients and checkpoints begin to cost. rates: of `block_rates`."""
    rows: list[list[Any]] = []
    for size in PRETRAINED:
        for card in PEAK:
            speed, exchanged = tokens_per_second(card, size), 2 * 4 * SIZES[size].parameters
            fed = (f"{rate / speed:,.0f}" for rate in rates.values())
            least = (f"{exchanged / (gigabits / 8 * 1e9) * speed:,.0f}" for gigabits in LINKS)
            rows.append([f"{size}, {card}", *fed, *least, f"{_checkpoint_bytes(size) / DISK_BYTES:.1f}"])
    header = [*(f"GPUs fed, {name}" for name in rates), *(f"tokens, {gigabits} Gbit/s" for gigabits in LINKS)]
    show("scale-limits", ["model", *header, "checkpoint, seconds"], rows)
    files, chunks = 1e12 / SHARD_TOKENS, 1e12 / CHUNK_TOKENS
    print(f"\na store of 10^12 tokens: {files:,.0f} files, {chunks:,.0f} chunks")


def _checkpoint_bytes(size: str) -> float:
    return 3 * 4 * SIZES[size].parameters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=float, default=1e10)
    parser.add_argument("--ranks", type=int, default=4096)
    parser.add_argument("--parts", type=float, default=1e6)
    parser.add_argument("--tiny", action="store_true", help="everything small, to see that the script works")
    chosen = parser.parse_args()
    if chosen.tiny:
        chosen.sequences, chosen.ranks, chosen.parts = 1e4, 8, 200
    block_tokens = 1 << 17 if chosen.tiny else BLOCK_TOKENS
    simulate_plan(int(chosen.sequences), chosen.ranks, block_tokens)
    simulate_manifest(int(chosen.parts), chosen.ranks)
    limits(block_rates(block_tokens))
    costs()
    storage()


if __name__ == "__main__":
    main()
