"""The tokens of a text as a model reads them, and what a page tells of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bothways.batch import PackedBatch, pack_sequences
from bothways.text.tokenizer import Pieces, Tokenizer


def tokens_of_text(
    tokenizer: Tokenizer, parts: Sequence[Pieces]
) -> tuple[PackedBatch, list[dict[str, Any]], list[str]]:
    """A text of one part or two is read as `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`.

    Returns a batch of this one sequence; of each of its T tokens what a page tells (its `word` is an index into the
    words, -1 of `[CLS]` and `[SEP]`); the words, each joined of its pieces.
    """
    pieces, segment_ids = tokenizer.with_special_tokens(parts)
    first_words = np.cumsum([0, *(part.word_ids.max(initial=-1) + 1 for part in parts)])
    word_indices = np.where(pieces.word_ids < 0, -1, pieces.word_ids + first_words[segment_ids])
    special = {*tokenizer.special_ids} - {tokenizer.unk_id}
    words = [""] * int(first_words[-1])
    for id, word in zip(pieces.input_ids.tolist(), word_indices.tolist(), strict=True):
        if word >= 0:
            words[word] += tokenizer.shown(id)
    columns = zip(pieces.input_ids.tolist(), segment_ids.tolist(), word_indices.tolist(), strict=True)
    tokens = [
        {
            "token": tokenizer.token(id), "id": id, "position": position, "segment": segment, "word": word,
            "special": word < 0 or id in special, "unknown": id == tokenizer.unk_id,
        }
        for position, (id, segment, word) in enumerate(columns)
    ]  # fmt: skip
    return pack_sequences([(pieces.input_ids, tokenizer.token_type_ids(segment_ids))]), tokens, words
