"""SQuAD's measures of an answer, exact match and F1, as its evaluation script, v2.0, computes them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = frozenset(string.punctuation)


def normalise(text: str) -> str:
    """The text lower-cased, without punctuation and the articles a, an, the, with single blanks: what SQuAD compares
    (Rajpurkar et al. 2016, section 6.1)."""
    kept = "".join(character for character in text.lower() if character not in _PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def best_exact(predicted: str, gold: Sequence[str]) -> float:
    """1 where a gold answer is the predicted one, both normalised, else 0. Without gold answers "" is right."""
    return float(any(normalise(predicted) == normalise(answer) for answer in _compared(gold)))


def best_f1(predicted: str, gold: Sequence[str]) -> float:
    """The best overlap in words with a gold answer, both normalised, 0 to 1. Without gold answers "" is right."""
    return max(_f1(normalise(predicted).split(), normalise(answer).split()) for answer in _compared(gold))


def _compared(gold: Sequence[str]) -> list[str]:
    """The gold answers that have a word left after normalisation; where none has, the right answer is none."""
    return [answer for answer in gold if normalise(answer)] or [""]


def _f1(predicted: list[str], gold: list[str]) -> float:
    if not predicted or not gold:
        return float(predicted == gold)
    same = sum((Counter(predicted) & Counter(gold)).values())
    return 2 * same / (len(predicted) + len(gold))
