"""Next tokens: every document read from left to right, each token to say the one that follows.

Bengio et al. 2003, section 1; Radford et al. 2018 (GPT), section 3.1.

Shapes: T tokens of a batch, E examples of a block, N examples of a batch.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from bothways.batch import PackedBatch, pack
from bothways.data.spans import SpanOptions, Spans, ranges
from bothways.data.store import Chunk
from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class NextTokens:
    """Examples where each token predicts the next: `[SOS] x1 … xn` is read, `x1 … xn [EOS]` predicted.

    A document longer than `sequence_length` is cut into consecutive windows, so that each of its tokens is predicted
    once an epoch; where the first cut lies is drawn anew for each epoch. `[SOS]` and `[EOS]` are BERT's `[CLS]` and
    `[SEP]`. `options.short` and `options.random_next` are not used.
    """

    options: SpanOptions
    tokenizer: Tokenizer

    @property
    def identity(self) -> list[str]:
        return [f"NextTokens({self.options!r})"]

    def lay_out(self, chunk: Chunk) -> Chunk:
        """Every document between a `[CLS]` and a `[SEP]`, as one sentence."""
        offsets = chunk.sentence_offsets[chunk.document_offsets]
        number = len(offsets) - 1
        places = np.stack([offsets[:-1], offsets[1:]], -1).flatten()
        tokens = np.insert(chunk.tokens, places, np.tile([self.tokenizer.cls_id, self.tokenizer.sep_id], number))
        return Chunk(tokens, offsets + 2 * np.arange(number + 1), np.arange(number + 1))

    def spans(self, chunk: Chunk, rng: np.random.Generator) -> Spans:
        """Spans of the tokens that are read. What is predicted lies one token further, so that the last token of a
        document, its `[SEP]`, is in no span."""
        room = self.options.sequence_length
        segments: list[tuple[int, int]] = []
        offsets = chunk.sentence_offsets.tolist()
        for start, next_start in itertools.pairwise(offsets):
            end = next_start - 1
            first = start + (int(rng.integers(1, room + 1)) if end - start > room else room)
            segments += itertools.pairwise([start, *range(first, end, room), end])
        return Spans.of_single_segments(segments)

    def lengths(self, spans: Spans) -> np.ndarray:
        return spans.lengths

    def batch(self, tokens: np.ndarray, spans: Spans, keys: np.ndarray, step: int) -> PackedBatch:
        """Target `next_tokens` `[T]`: the id that follows each."""
        read = ranges(spans.a_start, spans.lengths)
        input_ids, next_tokens = tokens[read].astype(np.int64), tokens[read + 1].astype(np.int64)
        return pack(input_ids, np.zeros_like(input_ids), spans.lengths, {"next_tokens": next_tokens})
