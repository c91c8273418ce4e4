"""How documents become examples of two segments or one: next-sentence pairs, ordered pairs, full sentences."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from bothways.data.spans import SpanOptions, Spans
from bothways.data.store import Chunk

# Special tokens around one segment and two, `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`: what segments leave room for.
SINGLE_SPECIAL_TOKENS, PAIR_SPECIAL_TOKENS = 2, 3
RANDOM_NUMBERS_AT_ONCE = 4096  # one call of the generator costs as much as a thousand numbers from it
Pair = tuple[int, int, int, int, int]  # a row of `Spans`


class Pairing(Protocol):
    """How the documents of a block become examples of two segments or one, for objectives with masks.

    The repr is hashed into a run's identity: names of classes and fields stay.
    """

    @property
    def options(self) -> SpanOptions: ...

    next_sentence: ClassVar[bool]  # whether the examples carry a next_sentence_label to learn

    def lay_out(self, chunk: Chunk, sep_id: int) -> Chunk:
        """The tokens that spans refer to, as `ExampleMaker.lay_out`. sep_id: of the token that parts documents."""
        ...

    def spans(self, chunk: Chunk, rng: np.random.Generator) -> Spans:
        """The examples of a laid-out chunk, in the order of its documents."""
        ...


class _PairMaker:
    """Makes the pairs of a chunk, document by document, as `SentencePairs` describes."""

    def __init__(self, chunk: Chunk, options: SpanOptions, rng: np.random.Generator) -> None:
        # lists, as single elements of arrays are slow: sentence s is tokens offsets[s]:offsets[s+1], document d is
        # sentences documents[d]:documents[d+1]
        self._offsets, self._documents = chunk.sentence_offsets.tolist(), chunk.document_offsets.tolist()
        self._options = options
        self._room = options.sequence_length - PAIR_SPECIAL_TOKENS
        self._rng = rng
        self._uniforms: list[float] = []

    def spans(self) -> Spans:
        pairs: list[Pair] = []
        for document in range(len(self._documents) - 1):
            pairs.extend(self._pairs_of(document))
        return Spans.of_rows(pairs)

    def _uniform(self) -> float:
        if not self._uniforms:
            self._uniforms = self._rng.random(RANDOM_NUMBERS_AT_ONCE).tolist()
        return self._uniforms.pop()

    def _integer(self, low: int, high: int) -> int:
        """low to high - 1."""
        return low + int(self._uniform() * (high - low))

    def _target_length(self) -> int:
        """Tokens that the next pair is to have: all there is room for, or, for some, any number from 2."""
        return self._integer(2, self._room + 1) if self._uniform() < self._options.short else self._room

    def _pairs_of(self, document: int) -> list[Pair]:
        offsets, end = self._offsets, self._documents[document + 1]
        pairs = []
        first, target = self._documents[document], self._target_length()
        last = first
        while last < end:
            last += 1
            if last < end and offsets[last] - offsets[first] < target:
                continue
            split = first + 1 if last - first == 1 else self._integer(first + 1, last)
            pair = self._pair(document, first, split, last, target)
            if pair is not None:
                pairs.append(pair)
                if self._leaves_rest(pair):
                    last = split
            first, target = last, self._target_length()
        return pairs

    def _leaves_rest(self, pair: Pair) -> bool:
        """Whether B is from elsewhere, so that the sentences behind A are unused and put back."""
        return pair[-1] == 1

    def _pair(self, document: int, first: int, split: int, last: int, target: int) -> Pair | None:
        """A pair of the sentences first to last - 1, cut at split; None where they are a single token."""
        a = (self._offsets[first], self._offsets[split])
        several_documents = len(self._documents) > 2
        if several_documents and (last - first == 1 or self._uniform() < self._options.random_next):
            b = self._random_segment(document, target - (a[1] - a[0]))
            return (*self._truncate(*a, *b), 1)
        consecutive = self._consecutive(first, split, last)
        return None if consecutive is None else (*consecutive, 0)

    def _consecutive(self, first: int, split: int, last: int) -> tuple[int, int, int, int] | None:
        """Sentences [first:split] and [split:last]; a single sentence is cut in two, one of one token gives nothing."""
        start, end = self._offsets[first], self._offsets[last]
        if split < last:
            return self._truncate(start, self._offsets[split], self._offsets[split], end)
        if end - start < 2:
            return None
        cut = self._integer(start + 1, end)
        return self._truncate(start, cut, cut, end)

    def _random_segment(self, document: int, length: int) -> tuple[int, int]:
        """Sentences of another document from a random one on, at least `length` tokens where it has so many."""
        other = self._integer(0, len(self._documents) - 2)
        other += other >= document
        start, end = self._integer(self._documents[other], self._documents[other + 1]), self._documents[other + 1]
        last = start + 1
        while last < end and self._offsets[last] - self._offsets[start] < length:
            last += 1
        return self._offsets[start], self._offsets[last]

    def _truncate(self, a_start: int, a_end: int, b_start: int, b_end: int) -> tuple[int, int, int, int]:
        """Take tokens from the longer segment, each from a random end, until the pair fits."""
        while (excess := a_end - a_start + b_end - b_start - self._room) > 0:
            longer_a = a_end - a_start > b_end - b_start
            # the longer segment gives way until both are equal, then both in turn
            give = min(excess, max(1, abs((a_end - a_start) - (b_end - b_start))))
            front = sum(self._uniform() < 0.5 for _ in range(give))
            if longer_a:
                a_start, a_end = a_start + front, a_end - (give - front)
            else:
                b_start, b_end = b_start + front, b_end - (give - front)
        return a_start, a_end, b_start, b_end


class _OrderedPairMaker(_PairMaker):
    """Makes pairs as `SentenceOrder` describes."""

    def _leaves_rest(self, pair: Pair) -> bool:
        return False

    def _pair(self, document: int, first: int, split: int, last: int, target: int) -> Pair | None:
        consecutive = self._consecutive(first, split, last)
        if consecutive is None or self._uniform() >= self._options.random_next:
            return None if consecutive is None else (*consecutive, 0)
        a_start, a_end, b_start, b_end = consecutive
        return b_start, b_end, a_start, a_end, 1


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

    def lay_out(self, chunk: Chunk, sep_id: int) -> Chunk:
        """The chunk as it is."""
        return chunk

    def spans(self, chunk: Chunk, rng: np.random.Generator) -> Spans:
        """Pairs in the order of the documents; a document of a single token gives none."""
        return _PairMaker(chunk, self.options, rng).spans()


@dataclass(frozen=True)
class SentenceOrder(SentencePairs):
    """Two consecutive segments of one document, half of them swapped (Lan et al. 2019, ALBERT, section 3.1).

    next_sentence_label: 0 = in order, 1 = swapped.
    """

    def spans(self, chunk: Chunk, rng: np.random.Generator) -> Spans:
        """Pairs in the order of the documents; a document of a single token gives none."""
        return _OrderedPairMaker(chunk, self.options, rng).spans()


@dataclass(frozen=True)
class FullSentences:
    """One segment of consecutive sentences of one document, up to the length limit; for masked LM without pairs.

    Liu et al. 2019 (RoBERTa), section 4.2, DOC-SENTENCES. A sentence longer than the limit is cut into several.
    """

    options: SpanOptions = field(default_factory=SpanOptions)
    next_sentence: ClassVar[bool] = False

    def lay_out(self, chunk: Chunk, sep_id: int) -> Chunk:
        """The chunk as it is."""
        return chunk

    def spans(self, chunk: Chunk, rng: np.random.Generator) -> Spans:
        """Segments in the order of the documents, every token in one of them. Nothing is random."""
        room = self.options.sequence_length - SINGLE_SPECIAL_TOKENS
        offsets, documents = chunk.sentence_offsets.tolist(), chunk.document_offsets.tolist()
        segments: list[tuple[int, int]] = []
        for first, end in itertools.pairwise(documents):
            start = offsets[first]
            for sentence in range(first, end):
                while offsets[sentence + 1] - start > room:
                    cut = offsets[sentence] if offsets[sentence] > start else start + room
                    segments.append((start, cut))
                    start = cut
            if offsets[end] > start:
                segments.append((start, offsets[end]))
        return Spans.of_single_segments(segments)


@dataclass(frozen=True)
class FullSentencesAcross(FullSentences):
    """Consecutive sentences up to the length limit, on into the next document, a `[SEP]` between the two.

    Liu et al. 2019 (RoBERTa), section 4.2, FULL-SENTENCES.
    """

    def lay_out(self, chunk: Chunk, sep_id: int) -> Chunk:
        """The chunk as one document: a `[SEP]` ends the last sentence of every document but the last."""
        inner = chunk.document_offsets[1:-1]
        tokens = np.insert(chunk.tokens, chunk.sentence_offsets[inner], sep_id)
        added = np.searchsorted(inner, np.arange(len(chunk.sentence_offsets)), side="right")
        return Chunk(tokens, chunk.sentence_offsets + added, chunk.document_offsets[[0, -1]])
