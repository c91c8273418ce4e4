"""What BERT is trained to do: sentence pairs (next sentence) and masking (masked LM); `data/examples.py` makes batches
of it.

Examples are *spans*: rows of integers that say where in a block of tokens each segment lies. A block of a million
tokens is then a small table; tokens are gathered only for the batch at hand.

Random numbers are counter-based: each is a hash of (seed, epoch, …, counter), so any example can be made alone.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from bothways.data.store import Chunk
from bothways.errors import UserError
from bothways.text.tokenizer import Tokenizer

# Columns of an example: segment A is tokens [a_start:a_end] of the block, segment B [b_start:b_end] (empty: one segment
# only), next_sentence_label 0 = B follows A, 1 = B is random (BERT's convention).
A_START, A_END, B_START, B_END, NEXT_SENTENCE_LABEL = range(5)


@dataclass(frozen=True)
class SpanOptions:
    """sequence_length: tokens an example has at most, with `[CLS]` and `[SEP]`.
    short: the share of examples built to a random shorter length, so that short inputs are seen in training as well.
    random_next: the share of pairs whose second segment is random."""

    sequence_length: int = 128
    short: float = 0.1
    random_next: float = 0.5

    def __post_init__(self) -> None:
        if self.sequence_length < 8:
            raise UserError(f"--sequence-length {self.sequence_length}: expected at least 8 tokens")
        if not 0 <= self.short <= 1:
            raise UserError(f"--short {self.short}: expected a share, 0 to 1")


class Segments(Protocol):
    """How the documents of a block become examples of one segment or two: a part of masked-LM objectives."""

    @property
    def options(self) -> SpanOptions: ...

    next_sentence: ClassVar[bool]  # whether the examples carry a next_sentence_label to learn

    def arrange(self, block: Chunk, sep_id: int) -> Chunk:
        """The block as `examples` and the gathering of tokens read it."""
        ...

    def examples(self, block: Chunk, rng: np.random.Generator) -> np.ndarray:
        """int64 `[examples, 5]`, columns as `A_START` … `NEXT_SENTENCE_LABEL`."""
        ...


@dataclass(frozen=True)
class SentencePairs:
    """Next-sentence pairs, made as BERT makes them.

    A document's sentences are collected until they reach the target length; the collection is cut at a random sentence
    into A and the rest. With probability `random_next` B comes from another document instead, starting at a random
    sentence, and the rest is put back to be used next. The longer segment then loses tokens, at its front or its back,
    until the pair fits. Source: google-research/bert, `create_pretraining_data.py`, function for one document; unlike
    there, the random document is never the document itself: a block of one document has only true pairs.
    """

    options: SpanOptions = field(default_factory=SpanOptions)
    next_sentence: ClassVar[bool] = True
    builder: ClassVar[type[_PairBuilder]]

    def arrange(self, block: Chunk, sep_id: int) -> Chunk:
        return block

    def examples(self, block: Chunk, rng: np.random.Generator) -> np.ndarray:
        offsets, documents = block.sentence_offsets.tolist(), block.document_offsets.tolist()
        builder = self.builder(offsets, documents, self.options, rng)
        rows: list[tuple[int, int, int, int, int]] = []
        for document in range(len(documents) - 1):
            rows.extend(builder.document(document))
        return np.array(rows, dtype=np.int64).reshape(-1, 5)


class _PairBuilder:
    """Sentence s is tokens offsets[s]:offsets[s+1] of the block, document d sentences documents[d]:documents[d+1]."""

    def __init__(
        self, offsets: list[int], documents: list[int], options: SpanOptions, rng: np.random.Generator
    ) -> None:
        self.offsets, self.documents = offsets, documents
        self.options = options
        self.room = options.sequence_length - 3  # [CLS] A [SEP] B [SEP]
        self._rng = rng
        self._uniforms: list[float] = []

    def uniform(self) -> float:
        # one call of the generator costs as much as a thousand numbers from it
        if not self._uniforms:
            self._uniforms = self._rng.random(4096).tolist()
        return self._uniforms.pop()

    def integer(self, low: int, high: int) -> int:
        """low to high - 1."""
        return low + int(self.uniform() * (high - low))

    def target(self) -> int:
        return self.integer(2, self.room + 1) if self.uniform() < self.options.short else self.room

    def document(self, document: int) -> list[tuple[int, int, int, int, int]]:
        offsets, end = self.offsets, self.documents[document + 1]
        rows = []
        first, target = self.documents[document], self.target()
        last = first
        while last < end:
            last += 1
            if last < end and offsets[last] - offsets[first] < target:
                continue
            split = first + 1 if last - first == 1 else self.integer(first + 1, last)
            pair = self.pair(document, first, split, last, target)
            if pair is not None:
                rows.append(pair)
                if self.is_random(pair):
                    last = split  # the unused rest is put back
            first, target = last, self.target()
        return rows

    def is_random(self, pair: tuple[int, int, int, int, int]) -> bool:
        """Whether B is from elsewhere, so that what followed A has not been used."""
        return pair[NEXT_SENTENCE_LABEL] == 1

    def pair(
        self, document: int, first: int, split: int, last: int, target: int
    ) -> tuple[int, int, int, int, int] | None:
        a = (self.offsets[first], self.offsets[split])
        several = len(self.documents) > 2
        if several and (last - first == 1 or self.uniform() < self.options.random_next):
            b = self.random_segment(document, target - (a[1] - a[0]))
            return (*self.truncate(*a, *b), 1)
        consecutive = self.consecutive(first, split, last)
        return None if consecutive is None else (*consecutive, 0)

    def consecutive(self, first: int, split: int, last: int) -> tuple[int, int, int, int] | None:
        """Sentences [first:split] and [split:last]; a single sentence is cut in two, one of one token gives nothing."""
        start, end = self.offsets[first], self.offsets[last]
        if split < last:
            return self.truncate(start, self.offsets[split], self.offsets[split], end)
        if end - start < 2:
            return None
        cut = self.integer(start + 1, end)
        return self.truncate(start, cut, cut, end)

    def random_segment(self, document: int, length: int) -> tuple[int, int]:
        other = self.integer(0, len(self.documents) - 2)
        other += other >= document
        start, end = self.integer(self.documents[other], self.documents[other + 1]), self.documents[other + 1]
        last = start + 1
        while last < end and self.offsets[last] - self.offsets[start] < length:
            last += 1
        return self.offsets[start], self.offsets[last]

    def truncate(self, a_start: int, a_end: int, b_start: int, b_end: int) -> tuple[int, int, int, int]:
        while (excess := a_end - a_start + b_end - b_start - self.room) > 0:
            longer_a = a_end - a_start > b_end - b_start
            # the longer segment gives way until both are equal, then both in turn; each token from a random end
            give = min(excess, max(1, abs((a_end - a_start) - (b_end - b_start))))
            front = sum(self.uniform() < 0.5 for _ in range(give))
            if longer_a:
                a_start, a_end = a_start + front, a_end - (give - front)
            else:
                b_start, b_end = b_start + front, b_end - (give - front)
        return a_start, a_end, b_start, b_end


SentencePairs.builder = _PairBuilder


class _OrderBuilder(_PairBuilder):
    def is_random(self, pair: tuple[int, int, int, int, int]) -> bool:
        return False

    def pair(
        self, document: int, first: int, split: int, last: int, target: int
    ) -> tuple[int, int, int, int, int] | None:
        consecutive = self.consecutive(first, split, last)
        if consecutive is None or self.uniform() >= self.options.random_next:
            return None if consecutive is None else (*consecutive, 0)
        a_start, a_end, b_start, b_end = consecutive
        return b_start, b_end, a_start, a_end, 1


@dataclass(frozen=True)
class SentenceOrder(SentencePairs):
    """Two consecutive segments of one document, half of them swapped (Lan et al. 2019, ALBERT, section 3.1).

    next_sentence_label: 0 = in order, 1 = swapped.
    """

    builder: ClassVar[type[_PairBuilder]] = _OrderBuilder


@dataclass(frozen=True)
class FullSentences:
    """One segment of consecutive sentences of one document, up to the length limit; for masked LM without pairs.

    Liu et al. 2019 (RoBERTa), section 4.2, DOC-SENTENCES. A sentence longer than the limit is cut into several.
    """

    options: SpanOptions = field(default_factory=SpanOptions)
    next_sentence: ClassVar[bool] = False

    def arrange(self, block: Chunk, sep_id: int) -> Chunk:
        return block

    def examples(self, block: Chunk, rng: np.random.Generator) -> np.ndarray:
        room = self.options.sequence_length - 2  # [CLS] A [SEP]
        offsets, documents = block.sentence_offsets.tolist(), block.document_offsets.tolist()
        rows: list[tuple[int, int, int, int, int]] = []
        for first, end in itertools.pairwise(documents):
            start = offsets[first]
            for sentence in range(first, end):
                while offsets[sentence + 1] - start > room:
                    cut = offsets[sentence] if offsets[sentence] > start else start + room
                    rows.append((start, cut, cut, cut, 0))
                    start = cut
            if offsets[end] > start:
                rows.append((start, offsets[end], offsets[end], offsets[end], 0))
        return np.array(rows, dtype=np.int64).reshape(-1, 5)


@dataclass(frozen=True)
class FullSentencesAcross(FullSentences):
    """Consecutive sentences up to the length limit, on into the next document, a `[SEP]` between the two.

    Liu et al. 2019 (RoBERTa), section 4.2, FULL-SENTENCES.
    """

    def arrange(self, block: Chunk, sep_id: int) -> Chunk:
        """The block as one document: a `[SEP]` ends the last sentence of every document but the last."""
        inner = block.document_offsets[1:-1]
        tokens = np.insert(block.tokens, block.sentence_offsets[inner], sep_id)
        added = np.searchsorted(inner, np.arange(len(block.sentence_offsets)), side="right")
        return Chunk(tokens, block.sentence_offsets + added, block.document_offsets[[0, -1]])


def example_lengths(examples: np.ndarray) -> np.ndarray:
    """Tokens of each example `[examples]`, with `[CLS]` and `[SEP]`."""
    a = examples[:, A_END] - examples[:, A_START]
    b = examples[:, B_END] - examples[:, B_START]
    return a + b + 2 + (b > 0)


def build_inputs(
    tokens: np.ndarray, examples: np.ndarray, tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gather the tokens of the examples: `[CLS] A [SEP] B [SEP]`, end to end.

    Returns input_ids int64 `[T]`, token_type_ids int64 `[T]` (0 up to the first `[SEP]`, then 1), lengths int64 `[N]`.
    """
    lengths = example_lengths(examples)
    a, b = examples[:, A_END] - examples[:, A_START], examples[:, B_END] - examples[:, B_START]
    begin = np.cumsum(lengths) - lengths
    input_ids = np.full(int(lengths.sum()), tokenizer.sep_id, dtype=np.int64)
    token_type_ids = np.zeros(len(input_ids), dtype=np.int64)
    input_ids[begin] = tokenizer.cls_id
    for start, length, offset in ((examples[:, A_START], a, begin + 1), (examples[:, B_START], b, begin + a + 2)):
        input_ids[ranges(offset, length)] = tokens[ranges(start, length)]
    token_type_ids[ranges(begin + a + 2, np.where(b > 0, b + 1, 0))] = 1
    return input_ids, token_type_ids, lengths


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """start, start + 1, … for each (start, length), end to end."""
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(starts, lengths) + within
