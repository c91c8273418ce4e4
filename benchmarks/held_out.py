"""The text that the quality benchmarks measure on: passages out of the last documents of each genre's file.

What trains on these files has to leave those documents out, as `training_texts` does.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import zstd_lines

from bothways.text.tokenizer import Tokenizer

GENRES = {
    "novels": "text-english/novels-eltec-en.jsonl.zst",
    "tales": "text-english/fairytales.jsonl.zst",
    "news": "text-english/wikinews-en.jsonl.zst",
    "dialogues": "text-english/dialogues-sgd.jsonl.zst",
    "Wikipedia 2018": "text-english/wikipedia-en-2018.jsonl.zst",
    "Wikipedia 2015": "wikipedia/part-3.jsonl.zst",
}
TEXTS = 300  # passages of a genre: about 3,000 masked words, so that an accuracy is known to a point
PASSAGE_WORDS, SHORTEST_PASSAGE = 80, 20  # by blanks: about 110 pieces, which a model of 128 positions reads whole
PASSAGES_OF_A_DOCUMENT = 10  # at most, so that no book is a genre
LAST_DOCUMENTS = 130  # that are looked at, and that training leaves out: the passages come from 30 to 123 of them
MASK_SHARE = 0.15  # of the words


@dataclass(frozen=True)
class Passage:
    """text: of a held-out document. words: the characters of the words to be masked, `(start, end)` each, the same
    whatever the vocabulary."""

    text: str
    words: list[tuple[int, int]]


def passages(data: Path, genre: str, number: int = TEXTS) -> list[Passage]:
    """A genre's passages, the same in every run."""
    last: deque[str] = deque(zstd_lines(data / GENRES[genre]), maxlen=LAST_DOCUMENTS)
    texts: list[str] = []
    for line in reversed(last):
        texts += _cut(json.loads(line)["text"])
        if len(texts) >= number:
            break
    return [_masked(text, index) for index, text in enumerate(texts[:number])]


def _cut(text: str) -> list[str]:
    words = text.split()
    cut = [words[start : start + PASSAGE_WORDS] for start in range(0, len(words), PASSAGE_WORDS)]
    return [" ".join(part) for part in cut[:PASSAGES_OF_A_DOCUMENT] if len(part) >= SHORTEST_PASSAGE]


def _masked(text: str, index: int) -> Passage:
    """index: of the passage in its genre, from which the draw follows."""
    words = [(start, end) for start, end in Tokenizer.words(text) if any(map(str.isalnum, text[start:end]))]
    number = max(1, round(MASK_SHARE * len(words)))
    chosen = np.random.default_rng(index).choice(len(words), min(number, len(words)), replace=False)
    return Passage(text, [words[index] for index in sorted(chosen)])


def training_texts(data: Path, files: list[str], megabytes: float = math.inf) -> Iterator[str]:
    """Documents of these files in turn, without the last ones of each. megabytes: of all files together, of which each
    gives the same share; by default all that they have."""
    for name in files:
        left = megabytes * 1e6 / len(files)
        waiting: deque[str] = deque()
        for line in zstd_lines(data / name):
            waiting.append(line)
            if len(waiting) <= LAST_DOCUMENTS:
                continue
            text = json.loads(waiting.popleft())["text"]
            yield text
            left -= len(text.encode())
            if left < 0:
                break
