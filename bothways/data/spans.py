"""Spans: where the examples of pretraining lie in the tokens of a block.

An example is not copied out of the corpus when it is made: it is five integers, and tokens are read for the batch at
hand alone. A block of eight million tokens is then a table of some 70,000 rows. Two documents, three sentences each:

    tokens      t0 ... t9 | t10 ... t29 | t30 ... t39 || t40 ... t59 | t60 ... t69 | t70 ... t79
    example 0   [--- a ---][---- b ----]                                      follows: next_sentence_label 0
    example 1              [---- a ----]                             [----------- b -----------]   random: 1
    example 2                            [---- a ----]  b empty     one segment only: b_start == b_end

What is made of spans is an `ExampleMaker`'s: masked sequences (`data/masking.py`) or next tokens
(`data/next_tokens.py`). The plan (`data/plan.py`) knows only this protocol.

Shapes: E examples of a block, N examples of a batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

from bothways.batch import PackedBatch
from bothways.data.store import Chunk
from bothways.errors import UserError, option


@dataclass(frozen=True)
class SpanOptions:
    """How long examples are and how pairs are drawn.

    sequence_length: tokens an example has at most, with `[CLS]` and `[SEP]`, from 8.
    short: the share of pairs built to a random shorter length, so that short inputs are seen in training as well.
    random_next: the share of pairs whose second segment is random.
    The repr is hashed into a run's identity: names of class and fields stay.
    Raises UserError for a length or a share out of range.
    """

    sequence_length: int = 128
    short: float = 0.1
    random_next: float = 0.5

    def __post_init__(self) -> None:
        if self.sequence_length < 8:
            raise UserError(f"{option('sequence_length', self.sequence_length)}: expected at least 8 tokens")
        if not 0 <= self.short <= 1:
            raise UserError(f"{option('short', self.short)}: expected a share, 0 to 1")


@dataclass(frozen=True)
class Spans:
    """Places of examples in a block's tokens, int64 `[E]` each.

    Segment A of an example is tokens `[a_start:a_end]`, segment B `[b_start:b_end]`, empty where there is one segment
    only. next_sentence_label: 0 = B follows A, 1 = it does not (BERT's convention); 0 without a segment B.
    """

    a_start: np.ndarray
    a_end: np.ndarray
    b_start: np.ndarray
    b_end: np.ndarray
    next_sentence_label: np.ndarray

    @classmethod
    def of_rows(cls, rows: Sequence[tuple[int, int, int, int, int]]) -> Spans:
        """Spans of rows `(a_start, a_end, b_start, b_end, next_sentence_label)`."""
        return cls(*np.array(rows, dtype=np.int64).reshape(-1, 5).T)

    @classmethod
    def of_single_segments(cls, segments: Sequence[tuple[int, int]]) -> Spans:
        """Spans without a segment B, of rows `(a_start, a_end)`."""
        return cls.of_rows([(start, end, end, end, 0) for start, end in segments])

    @classmethod
    def join(cls, parts: Sequence[Spans], offsets: Sequence[int]) -> Spans:
        """Spans of several blocks as spans of their tokens end to end; offsets: where each block's tokens begin."""
        shifts = np.repeat(np.asarray(offsets, dtype=np.int64), [len(part) for part in parts])
        columns = {field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)}
        return cls(**{name: column + shifts * (name != "next_sentence_label") for name, column in columns.items()})

    def __len__(self) -> int:
        return len(self.a_start)

    def take(self, index: np.ndarray | slice) -> Spans:
        """The examples of an index, in its order."""
        return Spans(*(getattr(self, field.name)[index] for field in fields(self)))

    @property
    def a_lengths(self) -> np.ndarray:
        """Tokens of each segment A, int64 `[E]`."""
        lengths: np.ndarray = self.a_end - self.a_start
        return lengths

    @property
    def b_lengths(self) -> np.ndarray:
        """Tokens of each segment B, int64 `[E]`, 0 where there is none."""
        lengths: np.ndarray = self.b_end - self.b_start
        return lengths

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of both segments, int64 `[E]`, special tokens not counted."""
        return self.a_lengths + self.b_lengths


class ExampleMaker(Protocol):
    """The data side of an objective: how a block's documents become batches. Knows nothing of plans, ranks, epochs."""

    @property
    def options(self) -> SpanOptions: ...

    @property
    def identity(self) -> list[str]:
        """What a resumed run must share. It is hashed, so the strings of a maker never change."""
        ...

    def lay_out(self, chunk: Chunk) -> Chunk:
        """The tokens that spans refer to: the chunk's own, or with special tokens put between its documents.

        Every later call takes the tokens of the chunk that this one returns.
        """
        ...

    def spans(self, chunk: Chunk, rng: np.random.Generator) -> Spans:
        """The examples of a laid-out chunk, in the order of its documents."""
        ...

    def lengths(self, spans: Spans) -> np.ndarray:
        """Tokens the model reads of each example, int64 `[E]`, special tokens counted."""
        ...

    def batch(self, tokens: np.ndarray, spans: Spans, keys: np.ndarray, step: int) -> PackedBatch:
        """The batch of some examples, with the objective's targets.

        tokens: of the laid-out chunk. keys: uint64 `[N]`; all that is random in an example follows from its key, so a
        sequence is the same in whatever batch it is. step: from 0, for what changes in the course of a run.
        """
        ...


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """start, start + 1, … start + length - 1 for each (start, length), end to end: int64 `[lengths.sum()]`."""
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(starts, lengths) + within
