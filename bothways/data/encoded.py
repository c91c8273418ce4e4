"""Encoded sequences: single texts and pairs as a model reads them, and the packed batch of some of them.

Shapes: T tokens of a sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from bothways.batch import PackedBatch, pack
from bothways.text.tokenizer import Pieces, Tokenizer


@dataclass(frozen=True)
class Encoded:
    """One sequence as the model reads it, `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`.

    A table's row is one sequence or several: the windows of a long text, the choices of a question, the two sentences
    of a pair.
    input_ids, token_type_ids: int64 `[T]`. segment_ids: int64 `[T]`, the number of each token's segment. offsets: int64
    `[T, 2]`, characters in the segment's text; special tokens have an empty range. targets: named by the task; scalars
    or arrays of this sequence. truncated: how many tokens were cut off. row: the number of the row that the sequence
    belongs to.
    """

    input_ids: np.ndarray
    token_type_ids: np.ndarray
    segment_ids: np.ndarray
    offsets: np.ndarray
    targets: Mapping[str, np.ndarray] = field(default_factory=dict)
    truncated: int = 0
    row: int = 0


KeepWhole = Literal["sequence", "row", "step"]  # what has to be in one batch


def token_windows(length: int, room: int, overlap: int) -> list[slice]:
    """Windows of at most `room` tokens over `length` tokens, each beginning `room - overlap` after the one before.

    There is at least one window, and as few as reach the end; every token is in a window. `transformers` cuts in the
    same way with `stride=overlap`.
    """
    starts = range(0, max(1, length - overlap), room - overlap)
    return [slice(start, min(start + room, length)) for start in starts]


def join_segments(tokenizer: Tokenizer, texts: Sequence[str | tuple[str, str]], max_length: int) -> list[Encoded]:
    """Encode texts and pairs as BERT reads them, at most `max_length` tokens each; text n is row n.

    Tokens that do not fit are cut from the end of the longer segment, one by one, as `transformers` does with
    `truncation=True` (longest_first); their number is in `truncated`.
    """
    flat = [part for text in texts for part in ((text,) if isinstance(text, str) else text)]
    pieces = iter(tokenizer.encode_batch(flat))
    encoded = []
    for row, text in enumerate(texts):
        segments = [next(pieces)] if isinstance(text, str) else [next(pieces), next(pieces)]
        lengths = [len(segment.input_ids) for segment in segments]
        kept = _truncated_lengths(lengths, max_length - tokenizer.num_special_tokens(len(segments)))
        parts = [segment[:keep] for segment, keep in zip(segments, kept, strict=True)]
        encoded.append(assemble(tokenizer, parts, row=row, truncated=sum(lengths) - sum(kept)))
    return encoded


def assemble(tokenizer: Tokenizer, segments: Sequence[Pieces], *, row: int, truncated: int = 0) -> Encoded:
    """A sequence of one segment or two in the tokenizer's template, `[CLS] a [SEP] b [SEP]`; nothing is cut."""
    pieces, segment_ids = tokenizer.with_special_tokens(segments)
    types = tokenizer.token_type_ids(segment_ids)
    return Encoded(pieces.input_ids, types, segment_ids, pieces.offsets, {}, truncated, row)


def _truncated_lengths(lengths: list[int], room: int) -> list[int]:
    """What is left of segments of these lengths in so much room, the longest cut first."""
    if len(lengths) == 1 or sum(lengths) <= room:
        return [min(length, room) for length in lengths[:1]] + lengths[1:]
    a, b = lengths
    shorter = min(a, b, room // 2)
    # the longer segment takes what the shorter one leaves; at equal lengths the odd token goes to the first
    return [room - shorter, shorter] if a >= b else [shorter, room - shorter]


def pack_encoded(
    encoded: Sequence[Encoded], collate: Callable[[Sequence[Encoded]], dict[str, np.ndarray]]
) -> PackedBatch:
    """A batch of encoded sequences in the order given, with the targets that `collate` makes of them."""
    lengths = np.array([len(sequence.input_ids) for sequence in encoded], dtype=np.int64)
    input_ids = np.concatenate([sequence.input_ids for sequence in encoded])
    token_type_ids = np.concatenate([sequence.token_type_ids for sequence in encoded])
    return pack(input_ids, token_type_ids, lengths, collate(encoded))
