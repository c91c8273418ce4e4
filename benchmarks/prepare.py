"""Preparation: speed and memory, beside `tokenizers` alone, `datasets.map`, and everything-in-memory.

    python benchmarks/prepare.py [--all] [--workers 2]

Each contestant reads the same articles (wikipedia-small, about 16 MB of text; with `--all` Bothways also prepares half
and all of the 0.4 GB of `wikipedia`) with the same vocabulary, in a process of its own. Memory is the
largest sum of the resident sets of the process and its children, sampled ten times a second; pages that processes share
are counted in each. Needs `pip install datasets`.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil


def texts(source: Path) -> list[str]:
    from bothways.text.corpus import CorpusOptions, read_documents
    from bothways.text.corpus_report import CorpusReport
    from bothways.text.sources import resolve_sources

    return [
        document.text for document in read_documents(resolve_sources([str(source)]), CorpusOptions(), CorpusReport())
    ]


def encode_batch(source: Path, vocabulary: Path, workers: int) -> float:
    """`tokenizers` alone on text that lies in memory, a paragraph a text, on all cores; seconds of encoding."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(vocabulary / "tokenizer.json"))
    paragraphs = [line for text in texts(source) for line in text.split("\n") if line]
    began = time.perf_counter()
    for start in range(0, len(paragraphs), 10_000):
        tokenizer.encode_batch(paragraphs[start : start + 10_000])
    return time.perf_counter() - began


def datasets_map(source: Path, vocabulary: Path, workers: int) -> float:
    """`datasets.map` with transformers' fast tokenizer, batched, as its run_mlm example does."""
    from datasets import Dataset
    from transformers import BertTokenizerFast

    tokenizer = BertTokenizerFast.from_pretrained(vocabulary)
    paragraphs = [line for text in texts(source) for line in text.split("\n") if line]
    data = Dataset.from_dict({"text": paragraphs})
    began = time.perf_counter()
    data.map(lambda rows: tokenizer(rows["text"]), batched=True, num_proc=workers, remove_columns=["text"])
    return time.perf_counter() - began


def in_memory(source: Path, vocabulary: Path, workers: int) -> float:
    """The way of google-research/bert: every document as lists of pieces, every instance as lists, all in memory."""
    from bothways.text.corpus import Document
    from bothways.text.sentences import split_sentences
    from bothways.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(vocabulary)
    documents = texts(source)
    began = time.perf_counter()
    pieces = [
        [[tokenizer.token(index) for index in ids] for ids in tokenizer.encode_ids(split_sentences(Document(text, "")))]
        for text in documents
    ]
    rng, instances = random.Random(0), []
    for document in pieces:
        tokens = [piece for sentence in document for piece in sentence]
        for start in range(0, len(tokens), 125):
            part = ["[CLS]", *tokens[start : start + 125], "[SEP]"]
            chosen = sorted(rng.sample(range(len(part)), max(1, len(part) * 15 // 100)))
            labels = [part[place] for place in chosen]
            for place in chosen:
                part[place] = "[MASK]"
            instances.append({"tokens": part, "segment_ids": [0] * len(part), "positions": chosen, "labels": labels})
    return time.perf_counter() - began


def bothways(source: Path, vocabulary: Path, workers: int) -> float:
    """`bothways prepare`, from the compressed file to the finished store."""
    from bothways.data.prepare import PrepareOptions, prepare
    from bothways.text.tokenizer import Tokenizer

    folder = Path(tempfile.mkdtemp())
    began = time.perf_counter()
    prepare([str(source)], Tokenizer.load(vocabulary), folder / "store", PrepareOptions(workers=workers))
    seconds = time.perf_counter() - began
    shutil.rmtree(folder)
    return seconds


def vocabulary_of(source: Path, vocabulary: Path, workers: int) -> float:
    """`bothways tokenizer` with 30,522 pieces."""
    from bothways.text.vocabulary import train_tokenizer

    began = time.perf_counter()
    train_tokenizer(str(source))
    return time.perf_counter() - began


CONTESTANTS = {f.__name__: f for f in (encode_batch, datasets_map, in_memory, bothways, vocabulary_of)}


def measure(name: str, source: Path, vocabulary: Path, workers: int) -> tuple[float, float]:
    """Seconds, and the largest resident memory in MB."""
    arguments = [sys.executable, __file__, "--child", name, str(source), str(vocabulary), str(workers)]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    tree, peak = psutil.Process(child.pid), 0
    while child.poll() is None:
        resident = 0
        for process in [tree, *children(tree)]:
            try:
                resident += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak = max(peak, resident)
        time.sleep(0.1)
    assert child.stdout is not None
    return json.loads(child.stdout.read().splitlines()[-1]), peak / 1e6


def children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def main() -> None:
    if "--child" in sys.argv:
        name, source, vocabulary, workers = sys.argv[2:]
        print(json.dumps(CONTESTANTS[name](Path(source), Path(vocabulary), int(workers))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args()
    from common import shared_data, show  # imports torch, which the contestants must not carry

    from bothways.text.vocabulary import train_tokenizer

    folder, small = Path(tempfile.mkdtemp()), shared_data() / "wikipedia-small.jsonl.zst"
    train_tokenizer(str(small), folder)
    megabytes = sum(len(text.encode()) for text in texts(small)) / 1e6
    rows: list[list[Any]] = []
    names = ["encode_batch", "datasets_map", "in_memory", "bothways", "vocabulary_of"]
    runs = {name: [measure(name, small, folder, chosen.workers) for _ in range(chosen.rounds)] for name in names}
    alone = min(seconds for seconds, _ in runs["encode_batch"])
    for name, measured in runs.items():
        seconds, peak = min(taken for taken, _ in measured), max(memory for _, memory in measured)
        rows.append([name, f"{megabytes:.0f} MB", megabytes / seconds, alone / seconds, peak])
        print(rows[-1], flush=True)
    if chosen.all:
        parts = shared_data() / "wikipedia"
        half = folder / "half"
        half.mkdir()
        for part in sorted(parts.glob("*.zst"))[::2]:
            shutil.copy(part, half)
        sizes = {place: sum(len(text.encode()) for text in texts(place)) / 1e6 for place in (half, parts)}
        for name, source in (("vocabulary_of", parts), ("bothways", half), ("bothways", parts)):
            size = sizes[source]
            seconds, peak = measure(name, source, folder, chosen.workers)
            rows.append([name, f"{size:.0f} MB", size / seconds, alone / megabytes * size / seconds, peak])
            print(rows[-1], flush=True)
    show("prepare", ["contestant", "text", "MB/s", "of encode_batch alone", "peak memory, MB"], rows)


if __name__ == "__main__":
    main()
