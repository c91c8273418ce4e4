"""What a word of a running text is for a model that was trained on listed words.

Such a model decides once for each listed word, whatever is in it (AT&T, O'Reilly, U.N.). A running text has to be cut
into the same words, or the parts of a word get decisions that nobody trained. What the training words tell of that is
a `WordRule`, which the model keeps.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from bothways.text.places import words_with_marks

# Unicode's White_Space, at which BERT cuts; `\s` of Python has four control characters more.
_BLANKS = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
# Scripts without blanks: BERT's Chinese characters, and the punctuation of their width, which never is within a word.
_CHINESE = "\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\U00020000-\U0002ceaf\U0002f800-\U0002fa1f"
_WIDE = (
    "\u3001-\u3003\u3008-\u3011\u3014-\u301f\u3030\u303d\ufe10-\ufe19\ufe30-\ufe52\ufe54-\ufe61\ufe63\ufe68\ufe6a\ufe6b"
    "\uff01-\uff03\uff05-\uff0a\uff0c-\uff0f\uff1a\uff1b\uff1f\uff20\uff3b-\uff3d\uff3f\uff5b\uff5d\uff5f-\uff64"
)
_UNITS = re.compile(f"[{_CHINESE}{_WIDE}]|[^{_BLANKS}{_CHINESE}{_WIDE}]+")
_INITIALS = re.compile(r"(?:[^\W\d_]\.){2,}")  # U.N., e.g.
_DOTS_AND_DASHES = re.compile(r"\.{2,}|-{2,}")  # ... and -- within a unit separate words
_SUFFIX = re.compile(r"['’]\w{1,2}")  # 's, 'll
_PREFIX = re.compile(r"\w{1,7}['’]")  # l', dell'
_NEVER_SEPARATORS = frozenset(".'’")  # in abbreviations, addresses, contractions
_SENTENCE_MARKS = ".,:;!?"
SEPARATORS = ',;!?()[]{}"“”„«»…—'  # within a unit, where training says nothing of them: "dog,cat" is three words
MAX_KNOWN_WORDS = 2000  # the most frequent of the training words with punctuation at an edge; some 20 KB
MAX_EDGE = 8  # characters of punctuation at an edge that are tried with the word; more are always cut off
# A mark that is a word of its own in training separates also within a unit, unless words held it once in so many.
RARELY = 100
ATTACHED_WORDS = 5  # different words that begin with a character, as @name, which make it a part of what follows
UNPEELED_ROWS = 0.2  # rows whose last word has its full stop, of all rows, in text that was split at blanks alone


@dataclass(frozen=True)
class WordRule:
    """How a running text is cut into the words that training listed.

    Blanks separate units. Punctuation at the edges of a unit is cut off, a character a word, where `peels`; the unit
    as it stands is a word where it is `known` (Yahoo!) or initials (U.N.). Within a unit only `separators` cut, and
    not between digits; what begins with a known 's or l' is cut there. Characters of `leading` stay with what they
    lead (@name). Chinese characters are words, one by one.

    known: training words with punctuation at an edge, the most frequent, sorted.
    """

    peels: bool = True
    separators: str = SEPARATORS
    leading: str = ""
    known: tuple[str, ...] = ()

    @classmethod
    def learnt(cls, sentences: Iterable[Sequence[str]]) -> Self:
        """The rule by the words of training sentences."""
        words: Counter[str] = Counter()
        rows = attached = alone = 0
        for sentence in sentences:
            words.update(sentence)
            last = sentence[-1]
            rows += 1
            marks = all(map(_is_mark, last))
            alone += marks
            attached += not marks and last[-1] in _SENTENCE_MARKS and not _INITIALS.fullmatch(last)
        edged = {
            word: count for word, count in words.items() if len(word) > 1 and (_is_mark(word[0]) or _is_mark(word[-1]))
        }
        known = sorted(edged, key=lambda word: (-edged[word], word))[:MAX_KNOWN_WORDS]
        peels = attached <= max(alone, UNPEELED_ROWS * rows)
        return cls(peels, _separators(words), _leading(words), tuple(sorted(known)))

    def to_json(self) -> dict[str, Any]:
        """As `bothways.json` keeps it."""
        return {
            "peels": self.peels, "separators": self.separators, "leading": self.leading, "known": list(self.known),
        }  # fmt: skip

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Self:
        """The rule of `to_json`."""
        return cls(bool(state["peels"]), str(state["separators"]), str(state["leading"]), tuple(state["known"]))

    def words(self, text: str) -> list[tuple[int, int]]:
        """Start and end character of each word of a text."""
        known = frozenset(self.known)
        found: list[tuple[int, int]] = []
        for unit in _UNITS.finditer(text):
            start, end = unit.span()
            if unit[0].isalnum() or not self.peels:
                found.append((start, end))
            else:
                found += self._words_of_unit(text, start, end, known)
        return words_with_marks(found, text)

    def _words_of_unit(self, text: str, start: int, end: int, known: frozenset[str]) -> Iterator[tuple[int, int]]:
        first = next((n for n in range(start, end) if not _is_mark(text[n])), end)
        if first == end:
            yield from _runs(text, start, end, known)
            return
        last = next(n for n in range(end, first, -1) if not _is_mark(text[n - 1]))
        a, b = self._core(text, (start, first), (last, end), known)
        yield from _runs(text, start, a, known)
        whole = text[a:b] in known or _INITIALS.fullmatch(text, a, b)
        yield from [(a, b)] if whole else self._parts(text, a, b, known)
        yield from _runs(text, b, end, known)

    def _core(self, text: str, left: tuple[int, int], right: tuple[int, int], known: frozenset[str]) -> tuple[int, int]:
        """The unit less its punctuation, but as much of that as makes it a known word or initials.

        left: the unit's start, and its first character that is no mark; right: behind its last one, and the end.
        """
        (start, first), (last, end) = left, right
        for a in range(max(start, first - MAX_EDGE), first + 1):
            for b in range(min(end, last + MAX_EDGE), last - 1, -1):
                if text[a:b] in known or _INITIALS.fullmatch(text, a, b):
                    return a, b
        return (first - 1 if first > start and text[first - 1] in self.leading else first), last

    def _parts(self, text: str, start: int, end: int, known: frozenset[str]) -> Iterator[tuple[int, int]]:
        """A unit without punctuation at its edges, cut at separators, and where a known 's or l' begins or ends."""
        begin = start
        for a, b in self._cuts(text, start, end):
            if a > begin:
                yield from _without_clitics(text, begin, a, known)
            yield a, b
            begin = b
        if begin < end:
            yield from _without_clitics(text, begin, end, known)

    def _cuts(self, text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        n = start
        while n < end:
            run = _DOTS_AND_DASHES.match(text, n, end)
            if run and start < n and run.end() < end:
                yield run.span()
            elif text[n] in self.separators and not (text[n - 1].isdigit() and text[n + 1 : n + 2].isdigit()):
                yield n, n + 1
            n = run.end() if run else n + 1


def _without_clitics(text: str, start: int, end: int, known: frozenset[str]) -> Iterator[tuple[int, int]]:
    """A word, and apart from it the l' before it and the 's behind it that training listed as words of their own."""
    before = _PREFIX.match(text, start, end)
    if before and before.end() < end and before[0] in known:
        yield before.span()
        start = before.end()
    for length in (3, 2):
        behind = end - length
        if behind > start and text[behind:end] in known and _SUFFIX.fullmatch(text, behind, end):
            yield start, behind
            yield behind, end
            return
    yield start, end


def _runs(text: str, start: int, end: int, known: frozenset[str]) -> Iterator[tuple[int, int]]:
    """Punctuation as words: the longest that training listed (... or --), else a character a word."""
    while start < end:
        length = next((n for n in range(min(MAX_EDGE, end - start), 1, -1) if text[start : start + n] in known), 1)
        yield start, start + length
        start += length


def _separators(words: Counter[str]) -> str:
    """The marks that separate words within a unit, sorted."""
    within: Counter[str] = Counter()
    for word, count in words.items():
        for n in range(1, len(word) - 1):
            if _is_mark(word[n]) and not (word[n - 1].isdigit() and word[n + 1].isdigit()):
                within[word[n]] += count
    alone = {mark for mark in words if len(mark) == 1 and _is_mark(mark) and within[mark] * RARELY < words[mark]}
    unsaid = {mark for mark in SEPARATORS if not within[mark]}
    return "".join(sorted((alone | unsaid) - _NEVER_SEPARATORS))


def _leading(words: Counter[str]) -> str:
    """The marks that lead words, as @ and # do, and are seldom words of their own, sorted."""
    led: dict[str, set[str]] = {}
    counts: Counter[str] = Counter()
    for word, count in words.items():
        if len(word) > 1 and _is_mark(word[0]) and word[1].isalnum() and not _SUFFIX.fullmatch(word):
            led.setdefault(word[0], set()).add(word)
            counts[word[0]] += count
    kept = (mark for mark in led if len(led[mark]) >= ATTACHED_WORDS and counts[mark] > words[mark])
    return "".join(sorted(kept))


def _is_mark(character: str) -> bool:
    """Whether BERT takes a character for punctuation: Unicode's, and every ASCII symbol."""
    if character.isascii():
        return not character.isalnum() and character.isprintable()
    return unicodedata.category(character).startswith("P")
