"""Figures of merit that several tasks share, computed as the field's own tools compute them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bothways.tasks.entities import entity_words


def ratio(part: float, whole: float) -> float:
    """part / whole; 0 where whole is 0, as in scikit-learn and seqeval."""
    return float(part) / float(whole) if whole else 0.0


def figures_by_label(
    right: np.ndarray, predicted: np.ndarray, support: np.ndarray, labels: Sequence[str]
) -> dict[str, Any]:
    """Precision, recall, F1 and support of each of L labels.

    right, predicted, support: counts `[L]` of the rows that are rightly predicted to have the label, of those that are
    predicted to have it, and of those that have it.
    """
    return {
        label: {
            "precision": ratio(right[i], predicted[i]),
            "recall": ratio(right[i], support[i]),
            "f1": ratio(2 * right[i], support[i] + predicted[i]),
            "support": int(support[i]),
        }
        for i, label in enumerate(labels)
    }


def macro_f1(figures: Mapping[str, Mapping[str, float]]) -> float:
    """The mean over labels of the F1 that `figures_by_label` gives."""
    return ratio(sum(of_label["f1"] for of_label in figures.values()), len(figures))


def classification_figures(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """accuracy, macro_f1, figures by label, and the confusion matrix (a line a gold label).

    Source: scikit-learn's `classification_report` with `zero_division=0`.
    """
    number = {label: index for index, label in enumerate(labels)}
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(confusion, ([number[label] for label in gold], [number[label] for label in predicted]), 1)
    figures = figures_by_label(confusion.diagonal(), confusion.sum(0), confusion.sum(1), labels)
    return {
        "accuracy": ratio(confusion.diagonal().sum(), confusion.sum()),
        "macro_f1": macro_f1(figures),
        "labels": figures,
        "confusion": confusion.tolist(),
    }


def correlations(gold: Sequence[float], predicted: Sequence[float]) -> dict[str, float]:
    """spearman and pearson, -1 to 1; 0 where one side is constant."""
    a, b = np.asarray(gold, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    return {"spearman": _pearson(_ranks(a), _ranks(b)), "pearson": _pearson(a, b)}


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return ratio(float((a * b).sum()), float(np.sqrt((a * a).sum() * (b * b).sum())))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: np.ndarray = (last - (counts - 1) / 2)[inverse]
    return ranks


def span_figures(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, Any]:
    """f1, precision and recall over all entities (micro), and by kind: an entity counts when its kind and both its ends
    are right (Tjong Kim Sang and De Meulder 2003). Source: `seqeval` in its default mode."""
    true = {(row, *span) for row, tags in enumerate(gold) for span in entity_words(tags)}
    guessed = {(row, *span) for row, tags in enumerate(predicted) for span in entity_words(tags)}
    kinds = sorted({span[1] for span in true | guessed})

    def counted(found: set[tuple[int, str, int, int]]) -> np.ndarray:
        counts = Counter(span[1] for span in found)
        return np.array([counts[kind] for kind in kinds], dtype=np.int64)

    right = len(true & guessed)
    return {
        "f1": ratio(2 * right, len(true) + len(guessed)),
        "precision": ratio(right, len(guessed)),
        "recall": ratio(right, len(true)),
        "labels": figures_by_label(counted(true & guessed), counted(guessed), counted(true), kinds),
    }
