"""Places in a text: where characters end with what belongs to them, and places that were counted in other units.

Accents and vowel signs, variation selectors and joined emoji belong to the character before them.

BERT's normaliser takes many of them away, so that a piece made of "é" (an e and an accent) ends before the accent. For
a reader the letter ends behind it; here places are moved there.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

# Format characters that continue what is before them, as an emoji sequence has them (Unicode Technical Standard 51):
# the two joiners, and the tags that flags of regions are spelt with. Other format characters belong to nothing.
_JOINERS = frozenset("\u200c\u200d") | {chr(code) for code in range(0xE0020, 0xE0080)}


def ends_behind_marks(text: str) -> np.ndarray | None:
    """For each place 0 to len(text), where the marks that stand there end, int64 `[len(text) + 1]`; the place itself
    where none stands. None for a text without marks."""
    if text.isascii():
        return None
    marks = [ord(character) for character in set(text) if _continues(character)]
    if not marks:
        return None
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    places = np.arange(len(text) + 1)
    places[:-1][np.isin(codes, marks)] = len(text)
    found: np.ndarray = np.minimum.accumulate(places[::-1])[::-1]
    return found


def _continues(character: str) -> bool:
    return character in _JOINERS or unicodedata.category(character).startswith("M")


def offsets_with_marks(offsets: np.ndarray, text: str) -> np.ndarray:
    """Pieces' characters `[T, 2]` with the marks that follow them, as far as the next piece does not have them."""
    ends = ends_behind_marks(text)
    if ends is None or not len(offsets):
        return offsets
    begin, end = offsets.T
    moved = ends[end]
    # pieces of one character (the parts of a Korean syllable, say) may share a place; then the next one begins before
    follows = begin[1:] >= end[:-1]
    moved[:-1] = np.where(follows, np.minimum(moved[:-1], begin[1:]), moved[:-1])
    return np.stack([begin, np.where(end > begin, moved, end)], axis=1)


def words_with_marks(words: Sequence[tuple[int, int]], text: str) -> list[tuple[int, int]]:
    """Words `(start, end)` with the marks that a rule of words cut from their ends; marks are no words of their own."""
    ends = ends_behind_marks(text)
    if ends is None:
        return list(words)
    found: list[tuple[int, int]] = []
    for start, end in words:
        if found and found[-1][1] > start:  # the word before took this one's first marks
            start = min(found[-1][1], end)
        if start < end:
            found.append((start, max(end, int(ends[end]))))
    return found


def other_unit(text: str, start: int, wanted: str) -> str:
    """What to say of a place at which `wanted` does not stand, if it does where other units than characters are
    counted; empty where no unit explains the place."""
    for codec, width, unit in (("utf-16-le", 2, "UTF-16 units, as browsers do"), ("utf-8", 1, "bytes")):
        behind = text.encode(codec, "surrogatepass")[start * width :]
        if behind.startswith(wanted.encode(codec, "surrogatepass")):
            character = len(text) - len(behind.decode(codec, "surrogatepass"))
            return f"; it is at character {character}: the places count {unit}, and have to count characters"
    normal_ends = text.replace("\r\n", "\n")
    if normal_ends != text and normal_ends.startswith(wanted, start):
        return "; the places count a line's end \\r\\n as a single character, and have to count both"
    return ""
