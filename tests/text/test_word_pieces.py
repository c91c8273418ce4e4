"""Which pieces are of words, as a walk through the vocabulary says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bothways.text.tokenizer import Tokenizer
from bothways.text.word_pieces import word_pieces
from tests.helpers import tiny_tokenizer


@pytest.mark.parametrize("vocabulary", ["tiny", "minilm"])
def test_pieces_with_letters_begin_words_or_go_on_with_them(vocabulary: str, minilm: Path) -> None:
    tokenizer = tiny_tokenizer() if vocabulary == "tiny" else Tokenizer.load(minilm)
    rows = tokenizer.vocab_size + 7
    found = word_pieces(tokenizer, rows)
    assert (found.shape, found.dtype) == ((2, rows), np.dtype(bool))
    for id in range(tokenizer.vocab_size):
        piece = tokenizer.token(id)
        is_special = piece.startswith("[") and piece.endswith("]")
        assert found[0, id] == (not is_special and any(map(str.isalnum, piece))), piece
        assert found[1, id] == (piece.startswith("##") and len(piece) > 2), piece
    assert not found[:, tokenizer.vocab_size :].any()
    assert found[0].sum() > found[1].sum() > 0
