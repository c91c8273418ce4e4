"""Figures of merit that several tasks share, computed as the field's own tools compute them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bothways.tasks.entities import entity_words

# A matrix of 100 labels is 10,000 numbers, some 30 KB of JSON and more than a screen; of 5,000 it is 25 million.
MAX_CONFUSION_LABELS = 100
MAX_LABELS_SHOWN = 100  # lines of a table by label, which people read
MOST_CONFUSED = 50  # pairs of labels that are listed where there is no matrix: a page of them


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


def commonest_labels(figures: Mapping[str, Mapping[str, float]]) -> list[tuple[str, Mapping[str, float]]]:
    """The figures of all labels, of more than `MAX_LABELS_SHOWN` those with the most rows, commonest first."""
    if len(figures) <= MAX_LABELS_SHOWN:
        return list(figures.items())
    return sorted(figures.items(), key=lambda item: -item[1]["support"])[:MAX_LABELS_SHOWN]


def macro_f1(right: np.ndarray, predicted: np.ndarray, support: np.ndarray) -> float:
    """The mean F1 of the labels that occur, in the truth or in the predictions; counts as of `figures_by_label`.

    Source: scikit-learn's `f1_score(average="macro")` without `labels`; of several labels a row its
    `zero_division=np.nan`, which leaves out the same labels.
    """
    whole = support + predicted
    occurs = whole > 0
    return ratio(float((2 * right[occurs] / whole[occurs]).sum()), int(occurs.sum()))


def classification_figures(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """accuracy, macro_f1 over the labels that occur, figures by label, and the confusion matrix (a line a gold label).

    Of more than `MAX_CONFUSION_LABELS` labels there is no matrix, but `confusion_left_out`, which says so, and
    `most_confused`, the commonest mistakes. Source: scikit-learn's `classification_report` with `zero_division=0`.
    """
    number = {label: index for index, label in enumerate(labels)}
    truth = np.array([number[label] for label in gold], dtype=np.int64)
    guess = np.array([number[label] for label in predicted], dtype=np.int64)
    right, guessed, support = (np.bincount(n, minlength=len(labels)) for n in (truth[truth == guess], guess, truth))
    return {
        "accuracy": ratio(int((truth == guess).sum()), len(truth)),
        "macro_f1": macro_f1(right, guessed, support),
        "labels": figures_by_label(right, guessed, support, labels),
        **_confusions(truth, guess, labels),
    }


def _confusions(truth: np.ndarray, guess: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """The confusion matrix, or what is kept in its place. truth, guess: numbers of labels, int64 `[rows]`."""
    size = len(labels)
    if size <= MAX_CONFUSION_LABELS:
        return {"confusion": np.bincount(truth * size + guess, minlength=size * size).reshape(size, size).tolist()}
    pairs, rows = np.unique((truth * size + guess)[truth != guess], return_counts=True)
    commonest = np.argsort(-rows, kind="stable")[:MOST_CONFUSED]
    return {
        "confusion_left_out": f"{size:,} labels; the matrix is made of up to {MAX_CONFUSION_LABELS}",
        "most_confused": [
            {"truth": labels[pairs[n] // size], "predicted": labels[pairs[n] % size], "rows": int(rows[n])}
            for n in commonest
        ],
    }


def figures_of_several(gold: Sequence[Any], given: Sequence[Any], labels: Sequence[str]) -> dict[str, Any]:
    """micro_f1, macro_f1 over the labels that occur, exact_match (the share of rows with exactly the right labels), and
    figures by label, where a row may have several of L labels.

    gold, given: of each row the numbers of its labels, each once.
    """
    size = len(labels)
    gold_cells, given_cells = (_cells(numbers, size) for numbers in (gold, given))
    both = np.intersect1d(gold_cells, given_cells, assume_unique=True)
    right, predicted, support = (np.bincount(cells % size, minlength=size) for cells in (both, given_cells, gold_cells))
    inexact = np.unique(np.setxor1d(gold_cells, given_cells, assume_unique=True) // size)
    return {
        "micro_f1": ratio(2 * len(both), len(gold_cells) + len(given_cells)),
        "macro_f1": macro_f1(right, predicted, support),
        "exact_match": ratio(len(gold) - len(inexact), len(gold)),
        "labels": figures_by_label(right, predicted, support, labels),
    }


def _cells(numbers: Sequence[Any], size: int) -> np.ndarray:
    """Where the ones are in the matrix of rows and labels, which is not made: row × size + label, int64."""
    rows = np.repeat(np.arange(len(numbers)), [len(of_row) for of_row in numbers])
    return rows * size + np.concatenate([np.asarray(of_row, dtype=np.int64) for of_row in numbers])


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
