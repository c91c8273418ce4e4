"""What a page shows beside what is printed: the same words, numbers of the same kind.

A number stands for any number, `…` for anything in its line, a line of `…` alone for any lines. Blanks count as one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
_PARTS = re.compile(rf"(…|(?<![\w.]){NUMBER}(?![\w])|\s+)")


def pattern_of(shown: str) -> re.Pattern[str]:
    """The expression that a printed line has to match as a whole."""
    parts = []
    for part in _PARTS.split(shown.strip()):
        if part == "…":
            parts.append(".*?")
        elif re.fullmatch(NUMBER, part):
            parts.append(NUMBER)
        elif part.isspace():
            parts.append(r"\s+")
        else:
            parts.append(re.escape(part))
    return re.compile("".join(parts), re.DOTALL)


def is_shown(shown: str, printed: str) -> bool:
    """Whether one text has the shape of the other."""
    return pattern_of(shown).fullmatch(printed.strip()) is not None


def first_difference(shown: Sequence[str], printed: Sequence[str]) -> str | None:
    """The first shown line that was not printed where it stands, in words; None if all are as they should be."""
    lines = [line for line in printed if line.strip()]
    expected = [line for line in shown if line.strip()]
    at, free = 0, False
    for line in expected:
        if line.strip() == "…":
            free = True
            continue
        where = next((k for k in range(at, len(lines)) if is_shown(line, lines[k])), None) if free else at
        if where is None or where >= len(lines) or not is_shown(line, lines[where]):
            return f"shown:   {line}\nprinted: {lines[at] if at < len(lines) else '(nothing more)'}"
        at, free = where + 1, False
    return None if free or at == len(lines) else f"printed, and not shown: {lines[at]}"
