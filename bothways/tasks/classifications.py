"""What a classifier says of a text: a label, several labels, or a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bothways.tasks.results import Result

SCORES_SHOWN = 5  # the likeliest labels in a repr, which is to stay a line


@dataclass(frozen=True, repr=False)
class Classification(Result):
    """The label of a text. label: the likeliest, as text: labels that were numbers in training come back as '1'.
    scores: the probability of every label, in the model's order; they sum to 1. They are a dictionary; of more than 100
    labels a mapping over an array, as `tasks.label_scores` has it."""

    label: str
    scores: Mapping[str, float]

    @property
    def probability(self) -> float:
        """That of the label, 0 to 1."""
        return self.scores[self.label]

    def to_dict(self) -> dict[str, Any]:
        """As `Result.to_dict`, with `probability`."""
        return {"label": self.label, "probability": self.probability, "scores": dict(self.scores)}

    def __repr__(self) -> str:
        return f"Classification(label={self.label!r}, scores={_shown(self.scores)})"


@dataclass(frozen=True, repr=False)
class MultiClassification(Result):
    """The labels of a text. labels: those whose probability reaches their threshold. scores: the probability of every
    label, each by itself, 0 to 1, as `Classification` has them."""

    labels: list[str]
    scores: Mapping[str, float]

    def __repr__(self) -> str:
        return f"MultiClassification(labels={self.labels!r}, scores={_shown(self.scores)})"


@dataclass(frozen=True, repr=False)
class Regression(Result):
    """The number of a text. value: in the unit of the training data."""

    value: float


def _shown(scores: Mapping[str, float]) -> str:
    """The likeliest labels with their scores, and how many others there are."""
    likeliest = sorted(scores.items(), key=lambda item: -item[1])[:SCORES_SHOWN]
    more = f", … {len(scores) - SCORES_SHOWN:,} more" if len(scores) > SCORES_SHOWN else ""
    return "{" + ", ".join(f"{label!r}: {score:.4g}" for label, score in likeliest) + more + "}"
