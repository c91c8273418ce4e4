"""How long the sentences and documents of a store are; read without torch, so that it is told at once."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from bothways.data.store import TokenStore
from bothways.errors import option

# The longest sequence of each bucket of the histogram, in tokens: BERT's usual lengths; a last bucket is open.
BUCKET_MAX_TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 4096)
ENOUGH_HELD_OUT = 5  # documents; chosen by hand: figures of fewer are those of one or two texts
BAR_WIDTH = 40  # characters of a bar that stands for all sentences


@dataclass(frozen=True)
class Histogram:
    """How many sentences and documents fall in each bucket of lengths: rows `(label, sentences, documents)`."""

    rows: list[tuple[str, int, int]]

    def lines(self) -> list[str]:
        """A table with a bar of the sentences' share."""
        whole = max(1, sum(row[1] for row in self.rows))
        return [f"{'tokens':>11}  {'sentences':>12}  {'documents':>12}"] + [
            f"{label:>11}  {sentences:>12,}  {documents:>12,}  {'█' * round(BAR_WIDTH * sentences / whole)}".rstrip()
            for label, sentences, documents in self.rows
        ]


def length_histogram(store: TokenStore) -> Histogram:
    """Lengths of all sentences and documents of both splits, one chunk in memory at a time."""
    sentences, documents = (np.zeros(len(BUCKET_MAX_TOKENS) + 1, dtype=np.int64) for _ in range(2))
    for split in (store.split("train"), store.split("validation")):
        for index in range(split.num_chunks):
            chunk = split.chunk(index)
            for counts, offsets in (
                (sentences, chunk.sentence_offsets),
                (documents, chunk.sentence_offsets[chunk.document_offsets]),
            ):
                buckets = np.searchsorted(BUCKET_MAX_TOKENS, np.diff(offsets))
                counts += np.bincount(buckets, minlength=len(counts))
    bounds = itertools.pairwise((0, *BUCKET_MAX_TOKENS))
    labels = [*(f"{low + 1:,}-{high:,}" for low, high in bounds), f"over {BUCKET_MAX_TOKENS[-1]:,}"]
    return Histogram(list(zip(labels, sentences.tolist(), documents.tolist(), strict=True)))


def documents_in_words(number: int) -> str:
    """`1 document`, `2,000 documents`."""
    return f"{number:,} document{'s' if number != 1 else ''}"


def few_held_out(documents: int) -> str | None:
    """What to say of figures on so few held-out documents; None where there are none, or `ENOUGH_HELD_OUT`."""
    if not 0 < documents < ENOUGH_HELD_OUT:
        return None
    what = "one document is" if documents == 1 else f"{documents} documents are"
    missing = ", and none of next sentences: a random one is from another document" if documents == 1 else ""
    cure = f"{option('validation', 0.2)} in preparing holds more out"
    return f"only {what} held out, so the figures say little{missing}; {cure}"
