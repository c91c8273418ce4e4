"""What lower case without accents takes away: letters whose marks are dropped, or that are taken apart.

BERT's uncased normalisation decomposes every letter and drops the marks (Unicode's category Mn): of `é` an `e` is left,
of `が` a `か`, and a Korean syllable becomes its two or three letters.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import numpy as np

from bothways.errors import option

COUNTED_CHARACTERS = 1 << 20  # texts are counted together, as a count of its own takes a millisecond
MIN_SHARE_SAID = 0.005  # of the letters: English stays below, German, French and Spanish are above
EXAMPLES = 3


class CharacterCounts:
    """How often each character occurs in some texts."""

    def __init__(self) -> None:
        self._counts = np.zeros(0x110000, dtype=np.int64)
        self._held: list[str] = []
        self._characters = 0

    def add(self, text: str) -> None:
        """Count a text."""
        self._held.append(text)
        self._characters += len(text)
        if self._characters >= COUNTED_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        codes = np.frombuffer("".join(self._held).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        self._counts += np.bincount(codes, minlength=len(self._counts))
        self._held, self._characters = [], 0

    def items(self) -> list[tuple[str, int]]:
        """The characters that occur, each with how often."""
        self._flush()
        return [(chr(code), int(self._counts[code])) for code in np.flatnonzero(self._counts)]


def folding_message(counts: CharacterCounts, normalise: Callable[[str], str]) -> str | None:
    """A line that says how many letters lose a mark or are taken apart, with the most frequent ones; None where they
    are below `MIN_SHARE_SAID` of all.

    normalise: a text as the vocabulary reads it. A mark that stands behind its letter counts as that letter.
    """
    letters = changed = 0
    examples: list[tuple[int, str]] = []
    for character, count in counts.items():
        category = unicodedata.category(character)
        if category[0] == "L":
            letters += count
        elif category != "Mn":
            continue
        now = normalise(character).strip()
        if now in (character, character.lower()) or (category[0] == "L" and not now):
            continue
        changed += count
        parts = " + ".join(now)
        examples.append(
            (-count, f"{character} → {parts}" if now else f"{character} (U+{ord(character):04X}) is dropped")
        )
    if not letters or changed < MIN_SHARE_SAID * letters:
        return None
    shown = ", ".join(example for _, example in sorted(examples)[:EXAMPLES])
    return (
        f"{min(1.0, changed / letters):.0%} of the letters lose a mark or are taken apart ({shown}); "
        f"{option('keep_marks', True)} leaves them as they are, {option('cased', True)} capitals as well"
    )
