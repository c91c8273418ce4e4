"""How the demo shows answers on the screen, and says of which the model is unsure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from bothways.pages.demo import Fills, is_unsure, right_or_wrong
from bothways.predictor import Predictor

NUM_GUESSES = 3  # for a mask: as many as fit a line


def say_title(console: Console, text: str) -> None:
    """The heading of a part."""
    console.print(f"\n[bold]{text}[/bold]")


def say_plainly(console: Console, text: str) -> None:
    """A line of text that may hold brackets."""
    console.print(text, markup=False)


def doubt(probability: float) -> str:
    """What is to be said of an answer of this probability, if the model is unsure of it."""
    return "  (unsure: more likely wrong than right)" if is_unsure(probability) else ""


def fill(model: Predictor, texts: Sequence[str], console: Console) -> Fills:
    """Fill the masks of texts, on the screen and for the page."""
    fills = []
    for text in texts:
        alternatives = [(fill.token, fill.probability) for fill in model.fill(text, top_k=5)[0]]
        fills.append((text, alternatives))
        guesses = "  ".join(f"{token} {probability:.0%}" for token, probability in alternatives[:NUM_GUESSES])
        say_plainly(console, f"{text}\n    {guesses}{doubt(alternatives[0][1])}")
    return fills


def judge_pairs(model: Predictor, pairs: Sequence[tuple[str, str, bool]], console: Console) -> list[list[Any]]:
    """Whether one sentence follows another, beside the truth, on the screen and for the page."""
    judged: list[list[Any]] = []
    for a, b, follows in pairs:
        probability = model.next_sentence(a, b)
        verdict = "follows" if probability >= 0.5 else "does not follow"
        judged.append([a, b, verdict, probability, right_or_wrong((probability >= 0.5) == follows)])
        say_plainly(console, f"{verdict:>15} {probability:4.0%} ({judged[-1][-1]})  {a} | {b}")
    return judged
