"""How much of a text a vocabulary does not have: the share of `[UNK]` among its tokens, special tokens not counted.

A model reads the same `[UNK]` whatever the text was, so what it says of such a text is a guess. Languages in letters
that the vocabulary has (German for an English one) are read letter by letter and have no `[UNK]`: of them nothing is
said here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bothways.data.encoded import Encoded
from bothways.data.store import TokenStore
from bothways.text.tokenizer import Tokenizer

# A text of which more than this share is unknown is a guess. Measured on sentences of eleven languages and three
# English vocabularies (30,522 pieces of bert-base-uncased, 8,192 of Wikipedia, 1,000 of questions to a bank): it holds
# for 72 % to 97 % of Chinese sentences and 80 % to 96 % of those in Arabic, Hindi and Korean where the vocabulary lacks
# their letters; for 0.0 % of English ones, messages of a telephone among them, and for none of 1,500 that were cut to
# two words and two emoji, whose share is a half.
MOSTLY_UNKNOWN = 0.5
# Of a whole table or corpus: with an emoji behind every English sentence it is 7 %; Chinese has 60 % or more, and
# Japanese by bert-base-uncased, which has its syllables but few of its signs, 24 %.
LARGE_UNKNOWN_SHARE = 0.2


@dataclass(frozen=True)
class UnknownTokens:
    """Counts of some texts; those of several add up.

    texts, tokens, unknown: all texts, their tokens, and how many of these are `[UNK]`. guesses: texts with a segment of
    which more than `MOSTLY_UNKNOWN` is: a question, say, whatever its context; guess_tokens, guess_unknown: the tokens
    of these segments. halves: guesses whose other segment can be read.
    """

    texts: int = 0
    tokens: int = 0
    unknown: int = 0
    guesses: int = 0
    guess_tokens: int = 0
    guess_unknown: int = 0
    halves: int = 0

    def __add__(self, other: UnknownTokens) -> UnknownTokens:
        return UnknownTokens(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def sentence(self, what: str = "texts") -> str | None:
        """Which texts the vocabulary cannot read; None where there are none. what: how they are called."""
        if not self.guesses:
            return None
        whose = ("a segment of " if self.halves else "") + self._number(self.guesses, what)
        return (
            f"{self.guess_unknown / self.guess_tokens:.0%} of the tokens of {whose} are unknown to this model's "
            "vocabulary; what it says of them is a guess"
        )

    def _number(self, number: int, what: str) -> str:
        if self.texts == 1:
            return f"the {what.removesuffix('s')}"
        return f"{number:,} of {self.texts:,} {what}"

    def table_sentence(self, what: str) -> str | None:
        """As `sentence`, of rows that are trained or measured on: also where a large share of all is unknown."""
        if self.tokens and self.unknown > LARGE_UNKNOWN_SHARE * self.tokens:
            share = self.unknown / self.tokens
            return f"{share:.0%} of the tokens of the {what} are unknown to this model's vocabulary, the same [UNK] all"
        return self.sentence(what)


def count_unknown(tokenizer: Tokenizer, ids: Sequence[np.ndarray]) -> UnknownTokens:
    """Count what the vocabulary does not have. ids: int `[T]` of each text."""
    nothing = [np.zeros(len(of_text), dtype=np.int64) for of_text in ids]
    return _count(tokenizer, ids, nothing, range(len(ids)))


def count_unknown_in(tokenizer: Tokenizer, encoded: Sequence[Encoded]) -> UnknownTokens:
    """As `count_unknown`, of the rows of encoded sequences."""
    ids, types = [sequence.input_ids for sequence in encoded], [sequence.token_type_ids for sequence in encoded]
    return _count(tokenizer, ids, types, [sequence.row for sequence in encoded])


def _count(
    tokenizer: Tokenizer, ids: Sequence[np.ndarray], token_type_ids: Sequence[np.ndarray], texts: Sequence[int]
) -> UnknownTokens:
    """token_type_ids: int `[T]` of each sequence, 0 or 1. texts: the number of the text that each belongs to."""
    if not len(ids):
        return UnknownTokens()
    flat = np.concatenate(ids)
    unknown = flat == tokenizer.unk_id
    counted = np.ones(len(flat), dtype=bool)
    for id in tokenizer.special_ids:
        counted &= flat != id
    counted |= unknown
    if not unknown.any():  # nearly always, and then it costs a short text no more than this
        return UnknownTokens(len(set(texts)), int(counted.sum()))
    numbers = np.unique(texts, return_inverse=True)[1]
    owner = np.repeat(2 * numbers, [len(sequence) for sequence in ids]) + np.concatenate(token_type_ids)
    size = 2 * (int(numbers.max()) + 1)
    tokens, of_these = (np.bincount(owner[which], minlength=size).reshape(-1, 2) for which in (counted, unknown))
    guess = of_these > MOSTLY_UNKNOWN * tokens  # [texts, segments]
    halves = guess.any(1) & (tokens > 0).all(1) & ~guess.all(1)
    counts = (
        *(len(tokens), tokens.sum(), of_these.sum()),
        *(guess.any(1).sum(), tokens[guess].sum(), of_these[guess].sum(), halves.sum()),
    )
    return UnknownTokens(*map(int, counts))


def unknown_in_store(store: TokenStore, name: str) -> str | None:
    """A sentence where a large share of a store's tokens is unknown, else None. name: of its text."""
    tokens, unknown = store.manifest["tokens"], store.manifest["unknown_tokens"]
    if unknown <= LARGE_UNKNOWN_SHARE * tokens:
        return None
    return f"{unknown / tokens:.0%} of the tokens of {name} are unknown to the vocabulary, the same [UNK] all"
