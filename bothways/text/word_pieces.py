"""Which pieces of a vocabulary are of words."""

from __future__ import annotations

import numpy as np

from bothways.text.tokenizer import Tokenizer


def word_pieces(tokenizer: Tokenizer, rows: int) -> np.ndarray:
    """Bool `[2, rows]`: whether a piece has a letter or a digit and is no special token, and whether it goes on with a
    word. rows: of a table of tokens, which may have some without a piece."""
    found = np.zeros((2, rows), dtype=bool)
    found[0, : tokenizer.vocab_size] = [_is_word(tokenizer.token(id)) for id in range(tokenizer.vocab_size)]
    found[1, : tokenizer.vocab_size] = tokenizer.continuations()
    return found


def _is_word(piece: str) -> bool:
    return any(character.isalnum() for character in piece) and not (piece.startswith("[") and piece.endswith("]"))
