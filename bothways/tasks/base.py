"""What the train loop, the evaluator, the predictor and the command line know of a task.

An `Objective` is what can be trained: a head, and sums with their counts. A `Task` is an objective on labelled rows:
it also knows how a row becomes tokens and how scores become a prediction. Pretraining is an objective; each task a user
fine-tunes for is one file in this folder and one line in `tasks.TASKS`.

Shapes: T tokens, N sequences, H hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from torch import Tensor, nn

from bothways.data.tables import Row
from bothways.model.encoder import Encoder
from bothways.text.wordpiece import WordPieceTokenizer


@dataclass(frozen=True)
class Encoded:
    """One row as the model reads it, `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`.

    input_ids, token_type_ids: int64 `[T]`. offsets: int64 `[T, 2]`, characters in the segment's text; special tokens
    have an empty range. targets: named by the task; scalars or arrays of one row. truncated: tokens that were cut off.
    """

    input_ids: np.ndarray
    token_type_ids: np.ndarray
    offsets: np.ndarray
    targets: Mapping[str, np.ndarray] = field(default_factory=dict)
    truncated: int = 0


class Objective(Protocol):
    """What the train loop knows."""

    def head(self, encoder: Encoder) -> nn.Module:
        """A new head for this encoder."""
        ...

    def counts(self, targets: Mapping[str, Tensor]) -> dict[str, int]:
        """How many targets each sum of `sums` runs over, known before the forward pass, so that a loss can be divided
        by the count of the whole step."""
        ...

    def sums(self, scores: Any, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums over the batch, by name; the names that end in `loss` are what is minimised, added up as means."""
        ...


class Task(Objective, Protocol):
    """What evaluator, predictor and command line know besides."""

    name: ClassVar[str]
    example: ClassVar[Mapping[str, Any]]  # a row, for errors and documentation

    @property
    def columns(self) -> Mapping[str, str]:
        """What a row must have, and what for."""
        ...

    def encode(self, rows: Sequence[Row], tokenizer: WordPieceTokenizer, max_length: int) -> list[Encoded]:
        """Rows as tokens and, where they carry labels, targets."""
        ...

    def collate(self, encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
        """The targets of a batch made of these rows, in this order."""
        ...

    def decode(self, scores: Any, encoded: Sequence[Encoded]) -> list[Any]:
        """One prediction a row."""
        ...

    def metrics(self, predictions: Sequence[Any], rows: Sequence[Row]) -> dict[str, Any]:
        """Figures of merit; the first one decides which checkpoint is the best."""
        ...

    def state(self) -> dict[str, Any]:
        """What `bothways.json` must keep to build this task again."""
        ...


def join_segments(
    tokenizer: WordPieceTokenizer, texts: Sequence[str | tuple[str, str]], max_length: int
) -> list[Encoded]:
    """Encode texts and pairs as BERT reads them, at most `max_length` tokens.

    What does not fit is cut from the end of the longer segment, token by token, as `transformers` does with
    `truncation=True` (longest_first); how much is counted in `truncated`.
    """
    flat = [part for text in texts for part in ((text,) if isinstance(text, str) else text)]
    pieces = iter(tokenizer.encode_batch(flat))
    encoded = []
    for text in texts:
        segments = [next(pieces)] if isinstance(text, str) else [next(pieces), next(pieces)]
        lengths = [len(segment.input_ids) for segment in segments]
        kept = _longest_first(lengths, max_length - 1 - len(segments))
        nothing = np.zeros((1, 2), dtype=np.int64)
        ids, types, offsets = [np.array([tokenizer.cls_id])], [np.zeros(1, dtype=np.int64)], [nothing]
        for number, (segment, keep) in enumerate(zip(segments, kept, strict=True)):
            ids += [segment.input_ids[:keep], np.array([tokenizer.sep_id])]
            types.append(np.full(keep + 1, number, dtype=np.int64))
            offsets += [segment.offsets[:keep], nothing]
        encoded.append(
            Encoded(np.concatenate(ids), np.concatenate(types), np.concatenate(offsets), {}, sum(lengths) - sum(kept))
        )
    return encoded


def _longest_first(lengths: list[int], room: int) -> list[int]:
    if len(lengths) == 1 or sum(lengths) <= room:
        return [min(length, room) for length in lengths[:1]] + lengths[1:]
    a, b = lengths
    shorter = min(a, b, room // 2)
    # the longer one takes what the shorter one leaves; at equal lengths the odd token goes to the first
    return [room - shorter, shorter] if a >= b else [shorter, room - shorter]
