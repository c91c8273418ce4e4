"""Encoded sequences: texts and pairs as a model reads them, one by one, and a packed batch of some of them.

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
    """One sequence as the model reads it, `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`. A row is one of them or several:
    the windows of a long text, the choices of a question, the two sentences of a pair.

    input_ids, token_type_ids: int64 `[T]`. offsets: int64 `[T, 2]`, characters in the segment's text; special tokens
    have an empty range. row: the number of its row. targets: named by the task; scalars or arrays of one sequence.
    truncated: tokens that were cut off.
    """

    input_ids: np.ndarray
    token_type_ids: np.ndarray
    offsets: np.ndarray
    targets: Mapping[str, np.ndarray] = field(default_factory=dict)
    truncated: int = 0
    row: int = 0


KeepWhole = Literal["sequence", "row", "step"]


def token_windows(length: int, room: int, overlap: int) -> list[slice]:
    """Windows of at most `room` over `length` things, each beginning `room - overlap` after the one before.

    At least one, as few as reach the end; every thing is in one of them. As `transformers` cuts with `stride=overlap`.
    """
    starts = range(0, max(1, length - overlap), room - overlap)
    return [slice(start, min(start + room, length)) for start in starts]


def join_segments(tokenizer: Tokenizer, texts: Sequence[str | tuple[str, str]], max_length: int) -> list[Encoded]:
    """Encode texts and pairs as BERT reads them, at most `max_length` tokens; each is a row.

    What does not fit is cut from the end of the longer segment, token by token, as `transformers` does with
    `truncation=True` (longest_first); how much is counted in `truncated`.
    """
    flat = [part for text in texts for part in ((text,) if isinstance(text, str) else text)]
    pieces = iter(tokenizer.encode_batch(flat))
    encoded = []
    for row, text in enumerate(texts):
        segments = [next(pieces)] if isinstance(text, str) else [next(pieces), next(pieces)]
        lengths = [len(segment.input_ids) for segment in segments]
        kept = _longest_first(lengths, max_length - 1 - len(segments))
        parts = [segment.take(keep) for segment, keep in zip(segments, kept, strict=True)]
        encoded.append(assemble(tokenizer, parts, row=row, truncated=sum(lengths) - sum(kept)))
    return encoded


def assemble(tokenizer: Tokenizer, segments: Sequence[Pieces], *, row: int, truncated: int = 0) -> Encoded:
    """`[CLS] a [SEP] …`: segments of pieces with the special tokens around them."""
    nothing = np.zeros((1, 2), dtype=np.int64)
    ids, types, offsets = [np.array([tokenizer.cls_id])], [np.zeros(1, dtype=np.int64)], [nothing]
    for number, segment in enumerate(segments):
        ids += [segment.input_ids, np.array([tokenizer.sep_id])]
        types.append(np.full(len(segment.input_ids) + 1, number, dtype=np.int64))
        offsets += [segment.offsets, nothing]
    return Encoded(np.concatenate(ids), np.concatenate(types), np.concatenate(offsets), {}, truncated, row)


def _longest_first(lengths: list[int], room: int) -> list[int]:
    if len(lengths) == 1 or sum(lengths) <= room:
        return [min(length, room) for length in lengths[:1]] + lengths[1:]
    a, b = lengths
    shorter = min(a, b, room // 2)
    # the longer one takes what the shorter one leaves; at equal lengths the odd token goes to the first
    return [room - shorter, shorter] if a >= b else [shorter, room - shorter]


def pack_encoded(
    encoded: Sequence[Encoded], collate: Callable[[Sequence[Encoded]], dict[str, np.ndarray]]
) -> PackedBatch:
    """A batch of encoded sequences in the order given, with the targets that `collate` makes of them."""
    lengths = np.array([len(one.input_ids) for one in encoded], dtype=np.int64)
    ids = np.concatenate([one.input_ids for one in encoded])
    segments = np.concatenate([one.token_type_ids for one in encoded])
    return pack(ids, segments, lengths, collate(encoded))
