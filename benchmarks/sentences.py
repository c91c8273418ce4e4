"""Which sentence splitter? Quality and speed of sentencex, blingfire and pysbd in one run.

Quality: F1 of the sentence boundaries inside the documents of UD English EWT (dev): the gold sentences of a document
are joined with a space, a boundary is right when it falls after the same character. EWT is web text (e-mail, reviews,
answers), a good part of its sentences end without punctuation: no rule-based splitter finds those.
Speed: MB/s on the paragraphs of Wikipedia articles, as the corpus reader cuts them, one process.

    python benchmarks/sentences.py [--megabytes 20] [--seconds 10] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

import zstandard

Splitter = Callable[[str], list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare sentence splitters.")
    parser.add_argument("--megabytes", type=float, default=20, help="of Wikipedia to split")
    parser.add_argument("--seconds", type=float, default=10, help="after which a slow splitter is stopped")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    gold = list(gold_documents(shared_data() / "ud-english-ewt/dev.conllu"))
    paragraphs = list(wikipedia_paragraphs(shared_data() / "wikipedia-small.jsonl.zst", options.megabytes * 1e6))
    rows = []
    for name, split in splitters().items():
        precision, recall, f1 = boundary_scores(split, gold)
        speed = megabytes_per_second(split, paragraphs, options.seconds)
        rows.append({"splitter": name, "precision": precision, "recall": recall, "f1": f1, "mb_per_second": speed})
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def splitters() -> dict[str, Splitter]:
    """The peers that are installed, by name and version."""
    import blingfire
    import pysbd
    import sentencex

    segmenter = pysbd.Segmenter(language="en", clean=False)
    found: dict[str, Splitter] = {
        "sentencex": lambda text: sentencex.segment("en", text),
        "blingfire": lambda text: blingfire.text_to_sentences(text).split("\n"),
        "pysbd": segmenter.segment,
    }
    return {f"{name} {importlib.metadata.version(name)}": split for name, split in found.items()}


def shared_data() -> Path:
    """The folder of data that lies beside the repository."""
    folder = Path(__file__).resolve().parents[1] / "../shared/data"
    if not folder.is_dir():
        sys.exit("this benchmark needs the data folder ../shared/data beside the repository; it is not there")
    return folder


def gold_documents(path: Path) -> Iterator[list[str]]:
    """The sentences of each document of a CoNLL-U file."""
    sentences: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# newdoc") and sentences:
            yield sentences
            sentences = []
        elif line.startswith("# text = "):
            sentences.append(line.removeprefix("# text = "))
    if sentences:
        yield sentences


def wikipedia_paragraphs(path: Path, size: float) -> Iterator[str]:
    """Paragraphs of at most `size` bytes in all."""
    with path.open("rb") as file:
        for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8"):
            for paragraph in filter(None, json.loads(line)["text"].splitlines()):
                size -= len(paragraph.encode())
                if size < 0:
                    return
                yield paragraph


def boundaries(sentences: list[str]) -> set[int]:
    """Where sentences end, counted in characters that are not white space; the end of the document is no boundary."""
    lengths = [len("".join(sentence.split())) for sentence in sentences]
    ends = list(accumulate(length for length in lengths if length))
    return set(ends[:-1])


def boundary_scores(split: Splitter, documents: list[list[str]]) -> tuple[float, float, float]:
    """Precision, recall and F1 over all documents."""
    right = found = expected = 0
    for sentences in documents:
        gold, predicted = boundaries(sentences), boundaries(split(" ".join(sentences)))
        right += len(gold & predicted)
        found += len(predicted)
        expected += len(gold)
    return right / found, right / expected, 2 * right / (found + expected)


def megabytes_per_second(split: Splitter, paragraphs: list[str], seconds: float) -> float:
    """Speed over the paragraphs, or over those done in the time."""
    done = 0
    began = time.perf_counter()
    for paragraph in paragraphs:
        split(paragraph)
        done += len(paragraph.encode())
        if time.perf_counter() - began > seconds:
            break
    return done / 1e6 / (time.perf_counter() - began)


def table(rows: list[dict]) -> str:
    fastest = max(row["mb_per_second"] for row in rows)
    lines = [f"{'splitter':<20} {'precision':>9} {'recall':>7} {'F1':>7} {'MB/s':>8} {'of fastest':>10}"]
    for row in rows:
        lines.append(
            f"{row['splitter']:<20} {row['precision']:>9.1%} {row['recall']:>7.1%} {row['f1']:>7.1%} "
            f"{row['mb_per_second']:>8.2f} {row['mb_per_second'] / fastest:>10.1%}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
