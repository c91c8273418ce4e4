"""What is in a store and in a batch, in figures and in words: for people, before and during a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bothways.batch import PackedBatch
from bothways.data.plan import PretrainingPlan
from bothways.data.store import TokenStore
from bothways.text.tokenizer import Tokenizer

UPPER = (8, 16, 32, 64, 128, 256, 512, 1024, 4096)  # tokens; the last bucket is open


@dataclass(frozen=True)
class Histogram:
    """How many sentences and how many documents have up to so many tokens: `(label, sentences, documents)`."""

    rows: list[tuple[str, int, int]]

    def lines(self) -> list[str]:
        """A table with a bar of the sentences' share."""
        whole = max(1, sum(row[1] for row in self.rows))
        return [f"{'tokens':>11}  {'sentences':>12}  {'documents':>12}"] + [
            f"{label:>11}  {sentences:>12,}  {documents:>12,}  {'█' * round(40 * sentences / whole)}".rstrip()
            for label, sentences, documents in self.rows
        ]


def length_histogram(store: TokenStore) -> Histogram:
    """Lengths of all sentences and documents of both splits, one chunk in memory at a time."""
    sentences, documents = np.zeros(len(UPPER) + 1, dtype=np.int64), np.zeros(len(UPPER) + 1, dtype=np.int64)
    for split in (store.split("train"), store.split("validation")):
        for index in range(split.num_chunks):
            chunk = split.chunk(index)
            for counts, offsets in (
                (sentences, chunk.sentence_offsets),
                (documents, chunk.sentence_offsets[chunk.document_offsets]),
            ):
                buckets = np.searchsorted(UPPER, np.diff(offsets))
                counts += np.bincount(buckets, minlength=len(counts))
    lower = (0, *UPPER)
    labels = [f"{low + 1:,}-{high:,}" for low, high in zip(lower, UPPER, strict=False)] + [f"over {UPPER[-1]:,}"]
    return Histogram(list(zip(labels, sentences.tolist(), documents.tolist(), strict=True)))


@dataclass(frozen=True)
class Epoch:
    """tokens, examples: in one pass over the training split, scaled up from the first block."""

    tokens: int
    examples: int


def estimate_epoch(plan: PretrainingPlan) -> Epoch:
    """What one pass over the split is to the model, with `[CLS]` and `[SEP]` and what an objective repeats."""
    block = plan.block(0, 0)
    share = plan.tokens / len(block.tokens)
    return Epoch(round(int(block.lengths.sum()) * share), round(len(block.lengths) * share))


def batch_in_words(batch: PackedBatch, tokenizer: Tokenizer) -> Iterator[str]:
    """One line a sequence: what the model reads, each masked token as `{read→true}`, and what the pair is; for next
    tokens, each of which is the one read after it, the last one after an arrow."""
    masks = [batch.targets[name].tolist() for name in ("mlm_index", "mlm_labels") if name in batch.targets]
    truths: dict[int, int] = dict(zip(*masks, strict=True)) if masks else {}
    following = batch.targets.get("next_tokens")
    pairs = batch.targets.get("next_sentence_label")
    start = 0
    for number, length in enumerate(batch.lengths.tolist()):
        ids = batch.input_ids[start : start + length].tolist()
        tokens = [tokenizer.token(index) for index in ids]
        for row in range(length):
            if start + row in truths:
                tokens[row] = f"{{{tokens[row]}→{tokenizer.token(truths[start + row])}}}"
        label = "" if pairs is None else f"  (next_sentence_label {int(pairs[number])})"
        if following is not None:
            label = f" → {tokenizer.token(int(following[start + length - 1]))}"
        yield f"{number + 1}. [{length} tokens] {' '.join(tokens)}{label}"
        start += length
