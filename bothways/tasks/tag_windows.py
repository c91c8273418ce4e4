"""Which window of a long text decides each of its words, and by which token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bothways.data.encoded import token_windows
from bothways.text.tokenizer import Pieces

FIRST_PIECES = "word_rows"  # a sequence's target; a run's fingerprint has the name, so it stays as it was


def first_pieces(characters: Sequence[tuple[int, int]], pieces: Pieces) -> np.ndarray:
    """The number of each word's first piece, int64 `[words]`; -1 for a word without a piece."""
    starts = np.array([start for start, _ in characters])
    word = np.searchsorted(starts, pieces.offsets[:, 0], side="right") - 1
    first = np.full(len(characters), -1)
    words, index = np.unique(word, return_index=True)
    first[words[words >= 0]] = index[words >= 0]
    return first


def windows_with_words(
    first: np.ndarray, length: int, room: int, overlap: int
) -> list[tuple[slice, dict[str, np.ndarray]]]:
    """Windows over the pieces of a text and, for each, the words it labels, as targets of `TagTask.encode`.

    A word belongs to the window in which its first piece is farthest from an edge. With 10 pieces, room for 6 and an
    overlap of 2, a word a piece:

        piece        0 1 2 3 4 5 6 7 8 9
        window 0     0 1 2 2 1 0             distance to the nearer edge
        window 1             0 1 2 2 1 0     piece 4 is nearer to an edge here, piece 5 nearer there
        labelled by  0 0 0 0 0 1 1 1 1 1

    first: of each word the number of its first piece, -1 for a word without one, which no window labels. length:
    pieces. room: pieces of a window. overlap: pieces that neighbours share.
    """
    windows = token_windows(length, room, overlap)
    best_distance, owner = np.full(len(first), -1), np.full(len(first), -1)
    order = np.argsort(first, kind="stable")  # words by their first piece, so that a window's words are one slice
    sorted_first = first[order]
    for number, window in enumerate(windows):
        inside = order[slice(*np.searchsorted(sorted_first, [window.start, window.stop]))]
        distance = np.minimum(first[inside] - window.start, window.stop - 1 - first[inside])
        owner[inside[distance > best_distance[inside]]] = number
        best_distance[inside] = np.maximum(best_distance[inside], distance)
    by_owner = np.argsort(owner, kind="stable")  # words of no window come first, and are cut off
    words = np.split(by_owner, np.searchsorted(owner[by_owner], np.arange(len(windows))))[1:]
    return [
        (window, {FIRST_PIECES: first[own] - window.start, "words": own})
        for window, own in zip(windows, words, strict=True)
    ]
