"""Figures of merit that several tasks share, computed as the field's own tools compute them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np


def ratio(part: float, whole: float) -> float:
    """part / whole, and 0 where whole is 0, as scikit-learn and seqeval have it."""
    return float(part) / float(whole) if whole else 0.0


def by_label(right: np.ndarray, predicted: np.ndarray, support: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Precision, recall, F1 and support of each label from counts `[L]`: predicted and right, predicted, true."""
    return {
        label: {
            "precision": ratio(right[i], predicted[i]),
            "recall": ratio(right[i], support[i]),
            "f1": ratio(2 * right[i], support[i] + predicted[i]),
            "support": int(support[i]),
        }
        for i, label in enumerate(labels)
    }


def classification_figures(truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """accuracy, macro_f1, per-label figures, and the confusion matrix (rows: truth).

    Source: scikit-learn's `classification_report` with `zero_division=0`.
    """
    number = {label: index for index, label in enumerate(labels)}
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(confusion, ([number[one] for one in truth], [number[one] for one in predicted]), 1)
    figures = by_label(confusion.diagonal(), confusion.sum(0), confusion.sum(1), labels)
    return {
        "accuracy": ratio(confusion.diagonal().sum(), confusion.sum()),
        "macro_f1": ratio(sum(one["f1"] for one in figures.values()), len(figures)),
        "labels": figures,
        "confusion": confusion.tolist(),
    }


def correlations(truth: Sequence[float], predicted: Sequence[float]) -> dict[str, float]:
    """spearman and pearson, -1 to 1; 0 where one side is constant."""
    a, b = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
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


Span = tuple[str, int, int]


def spans(tags: Sequence[str]) -> list[Span]:
    """Entities in a sequence of B- I- E- S- O tags: kind, first word, last word.

    Lenient, as conlleval and `seqeval` in its default mode: a tag continues the entity before it when it is an inside
    or end tag of the same kind after a begin or inside tag, and begins a new one otherwise.
    """
    found: list[Span] = []
    before, kind_before = "O", ""
    for place, tag in enumerate(tags):
        prefix, _, kind = tag.partition("-")
        if prefix in ("I", "E") and before in ("B", "I") and kind == kind_before:
            found[-1] = (kind, found[-1][1], place)
        elif prefix != "O":
            found.append((kind, place, place))
        before, kind_before = prefix, kind
    return found


def span_figures(truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, Any]:
    """f1, precision and recall over all entities (micro), and by kind: an entity counts when its kind and both its ends
    are right (Tjong Kim Sang and De Meulder 2003). Source: `seqeval` in its default mode."""
    true = {(row, *span) for row, tags in enumerate(truth) for span in spans(tags)}
    guessed = {(row, *span) for row, tags in enumerate(predicted) for span in spans(tags)}
    kinds = sorted({span[1] for span in true | guessed})

    def counted(found: set[tuple[int, str, int, int]]) -> np.ndarray:
        counts = Counter(span[1] for span in found)
        return np.array([counts[kind] for kind in kinds], dtype=np.int64)

    right = len(true & guessed)
    return {
        "f1": ratio(2 * right, len(true) + len(guessed)),
        "precision": ratio(right, len(guessed)),
        "recall": ratio(right, len(true)),
        "labels": by_label(counted(true & guessed), counted(guessed), counted(true), kinds),
    }
