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
    special = {tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id}
    ids, token_type_ids, word_indices = [tokenizer.cls_id], [0], [-1]
    words: list[str] = []
    for part_index, pieces in enumerate(parts):
        first_word = len(words)
        for id, word_id in zip(pieces.input_ids.tolist(), pieces.word_ids.tolist(), strict=True):
            if first_word + word_id >= len(words):
                words.append("")
            words[first_word + word_id] += tokenizer.token(id).removeprefix("##")
            ids.append(id)
            token_type_ids.append(part_index)
            word_indices.append(first_word + word_id)
        ids.append(tokenizer.sep_id)
        token_type_ids.append(part_index)
        word_indices.append(-1)
    tokens = [
        {
            "token": tokenizer.token(id), "id": id, "position": position, "segment": token_type, "word": word,
            "special": word < 0 or id in special, "unknown": id == tokenizer.unk_id,
        }
        for position, (id, token_type, word) in enumerate(zip(ids, token_type_ids, word_indices, strict=True))
    ]  # fmt: skip
    return pack_sequences([(np.array(ids), np.array(token_type_ids))]), tokens, words
