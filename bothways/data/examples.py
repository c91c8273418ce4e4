"""The data side of an objective: how the documents of a block become the batches that it is trained on.

Shapes: E examples of a block, N of them in a batch, T tokens of the batch.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bothways.batch import PackedBatch, pack
from bothways.data.masking import Masker
from bothways.data.sentence_pairs import (
    A_END,
    A_START,
    NEXT_SENTENCE_LABEL,
    Segments,
    SpanOptions,
    build_inputs,
    example_lengths,
    ranges,
)
from bothways.data.store import Chunk
from bothways.text.tokenizer import Tokenizer


class Examples(Protocol):
    """Spans of a block, and the batch that is made of some of them. Knows nothing of plans, ranks and epochs."""

    @property
    def options(self) -> SpanOptions: ...

    @property
    def description(self) -> list[str]:
        """What a resumed run must share."""
        ...

    def arrange(self, block: Chunk) -> Chunk:
        """The block as the other methods read it."""
        ...

    def examples(self, block: Chunk, rng: np.random.Generator) -> np.ndarray:
        """int64 `[E, 5]`, columns as `A_START` … `NEXT_SENTENCE_LABEL`."""
        ...

    def lengths(self, examples: np.ndarray) -> np.ndarray:
        """How many tokens the model reads of each example `[E]`."""
        ...

    def gather(self, tokens: np.ndarray, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids and segments of the examples, end to end."""
        ...

    def batch(
        self, ids: np.ndarray, segments: np.ndarray, examples: np.ndarray, keys: np.ndarray, step: int
    ) -> PackedBatch:
        """The batch of what was gathered. keys: uint64 `[N]`; everything random in an example follows from its own."""
        ...


@dataclass(frozen=True)
class MaskedExamples:
    """One or two segments, some of whose tokens are hidden, with `next_sentence_label` where the segments have it."""

    segments: Segments
    masker: Masker
    tokenizer: Tokenizer

    @property
    def options(self) -> SpanOptions:
        return self.segments.options

    @property
    def description(self) -> list[str]:
        return [repr(self.segments), repr(self.masker.masking)]

    def arrange(self, block: Chunk) -> Chunk:
        return self.segments.arrange(block, self.tokenizer.sep_id)

    def examples(self, block: Chunk, rng: np.random.Generator) -> np.ndarray:
        return self.segments.examples(block, rng)

    def lengths(self, examples: np.ndarray) -> np.ndarray:
        return example_lengths(examples)

    def gather(self, tokens: np.ndarray, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ids, segments, _ = build_inputs(tokens, examples, self.tokenizer)
        return ids, segments

    def batch(
        self, ids: np.ndarray, segments: np.ndarray, examples: np.ndarray, keys: np.ndarray, step: int
    ) -> PackedBatch:
        """Targets `mlm_index` and `mlm_labels` `[M]`, with pairs `next_sentence_label` `[N]` (0 = B follows A)."""
        lengths = example_lengths(examples)
        masked, mlm_index, mlm_labels = self.masker(ids, lengths, keys, step)
        targets = {"mlm_index": mlm_index, "mlm_labels": mlm_labels}
        if self.segments.next_sentence:
            targets["next_sentence_label"] = examples[:, NEXT_SENTENCE_LABEL]
        return pack(masked, segments, lengths, targets)


@dataclass(frozen=True)
class NextTokens:
    """Each token is to say the one that follows: `[SOS] x1 … xn` → `x1 … xn [EOS]` (Bengio et al. 2003, section 1).

    A document longer than `sequence_length` is cut into consecutive windows, so that each of its tokens is predicted
    once an epoch; where the first cut lies is drawn anew for each epoch. `[SOS]` and `[EOS]` are BERT's `[CLS]` and
    `[SEP]`. `options.short` is of no account.
    """

    options: SpanOptions
    tokenizer: Tokenizer

    @property
    def description(self) -> list[str]:
        return [f"NextTokens({self.options!r})"]

    def arrange(self, block: Chunk) -> Chunk:
        """Every document between a `[CLS]` and a `[SEP]`; sentences are forgotten."""
        offsets = block.sentence_offsets[block.document_offsets]
        number = len(offsets) - 1
        places = np.stack([offsets[:-1], offsets[1:]], -1).flatten()
        tokens = np.insert(block.tokens, places, np.tile([self.tokenizer.cls_id, self.tokenizer.sep_id], number))
        arranged = offsets + 2 * np.arange(number + 1)
        return Chunk(tokens, arranged, np.arange(number + 1))

    def examples(self, block: Chunk, rng: np.random.Generator) -> np.ndarray:
        """Spans of what is read; what is to be said lies one token further, so that a document's last is only said."""
        room, rows = self.options.sequence_length, []
        for start, end in zip(
            block.sentence_offsets[:-1].tolist(), (block.sentence_offsets[1:] - 1).tolist(), strict=True
        ):
            first = start + (int(rng.integers(1, room + 1)) if end - start > room else room)
            cuts = [start, *range(first, end, room), end]
            rows += [(a, b, b, b, 0) for a, b in itertools.pairwise(cuts)]
        return np.array(rows, dtype=np.int64).reshape(-1, 5)

    def lengths(self, examples: np.ndarray) -> np.ndarray:
        lengths: np.ndarray = examples[:, A_END] - examples[:, A_START]
        return lengths

    def gather(self, tokens: np.ndarray, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ids = tokens[ranges(examples[:, A_START], self.lengths(examples) + 1)].astype(np.int64)
        return ids, np.zeros_like(ids)

    def batch(
        self, ids: np.ndarray, segments: np.ndarray, examples: np.ndarray, keys: np.ndarray, step: int
    ) -> PackedBatch:
        """Target `next_tokens` `[T]`: the id that follows each."""
        lengths = self.lengths(examples)
        last = np.zeros(len(ids), dtype=bool)
        last[np.cumsum(lengths + 1) - 1] = True
        first = np.roll(last, 1)
        return pack(ids[~last], segments[~last], lengths, {"next_tokens": ids[~first]})
