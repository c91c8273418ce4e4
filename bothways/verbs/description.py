"""What `bothways info` has found at a path, and how numbers are written for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bothways.pages.display_names import display_name


@dataclass(frozen=True)
class Description:
    """lines: for people, some twenty. facts: all of it, for `--json`. next_command: what to type next, ready to paste;
    empty where it needs something that is not known."""

    lines: list[str]
    facts: Mapping[str, Any] = field(default_factory=dict)
    next_command: str = ""


def rounded(number: float) -> str:
    """A number for people: three figures, thousands with commas, millions as such."""
    if abs(number) >= 1e6:
        return f"{number / 1e6:,.1f} million"
    if isinstance(number, int) or number == round(number):
        return f"{number:,.0f}"
    return f"{number:,.3g}"


def figures_in_words(figures: Mapping[str, Any]) -> str:
    """The numbers among figures of merit in one line: "accuracy 0.933, macro F1 0.931"."""
    return ", ".join(f"{display_name(name)} {value:.3f}" for name, value in figures.items() if isinstance(value, float))
