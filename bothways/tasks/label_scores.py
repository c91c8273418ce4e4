"""The probabilities of labels: a row's as a mapping, which of thousands of labels is one array, and thresholds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

# Labels up to which a row's scores are a dictionary, which is what JSON's encoder takes. An entry takes 100 bytes
# there, and 4 in an array: of 5,000 labels a row has 500 KB or 20 KB.
MAX_DICTIONARY_LABELS = 100


class LabelScores(Mapping[str, float]):
    """The probability of every label, which behaves as a dictionary that cannot be changed.

    numbers: of each label its place in the array; rows share them. values: float32 `[labels]`. JSON's encoder wants
    `dict(scores)` or, of the whole prediction, `dataclasses.asdict`, which makes a dictionary.
    """

    __slots__ = ("numbers", "values_array")

    def __init__(self, numbers: Mapping[str, int], values: np.ndarray) -> None:
        self.numbers, self.values_array = numbers, values

    def __getitem__(self, label: str) -> float:
        return float(self.values_array[self.numbers[label]])

    def __iter__(self) -> Iterator[str]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __deepcopy__(self, memo: Any) -> dict[str, float]:
        return dict(self)  # so `dataclasses.asdict`, which copies what is no dictionary, gives what JSON takes


def scores_by_label(numbers: Mapping[str, int], probabilities: np.ndarray) -> Mapping[str, float]:
    """The scores of a row: a dictionary of few labels, `LabelScores` of many.

    numbers: of each label its place in `probabilities`, float64 `[labels]`.
    """
    if len(numbers) <= MAX_DICTIONARY_LABELS:
        values = probabilities.tolist()
        return {label: values[number] for label, number in numbers.items()}
    return LabelScores(numbers, probabilities.astype(np.float32))


def score_array(scores: Mapping[str, float]) -> np.ndarray:
    """The scores as an array `[labels]`, in their order."""
    if isinstance(scores, LabelScores):
        return scores.values_array
    return np.fromiter(scores.values(), dtype=np.float64, count=len(scores))


def least_certain(scores: Mapping[str, float], given: Sequence[str]) -> tuple[str, float]:
    """The label whose yes or no is the least certain, and the probability of that yes or no.

    given: the labels with a yes.
    """
    certainties = 1 - score_array(scores).astype(np.float64)
    number = scores.numbers if isinstance(scores, LabelScores) else {label: n for n, label in enumerate(scores)}
    index = [number[label] for label in given]
    certainties[index] = [scores[label] for label in given]
    least = int(certainties.argmin())
    return next(label for label, n in number.items() if n == least), float(certainties[least])


def best_threshold(scores: np.ndarray, gold: np.ndarray) -> float:
    """The threshold of the highest F1, halfway between two neighbouring scores; of several the nearest to 0.5.

    scores: probabilities `[rows]` of a label. gold: bool `[rows]`, whether a row has the label.
    """
    if not gold.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ordered, right = scores[order].astype(np.float64), np.cumsum(gold[order])
    f1 = 2 * right / (gold.sum() + np.arange(1, len(right) + 1))
    following = np.append(ordered[1:], 0.0)
    f1 = np.where(ordered > following, f1, -1.0)  # a threshold cannot part equal scores
    middles = (ordered + following) / 2
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(middles[best[np.argmin(np.abs(middles[best] - 0.5))]])
