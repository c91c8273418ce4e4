"""What the verbs print: figures of merit, and lines on standard error."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bothways.progress import print_note
from bothways.tasks.metrics import MAX_LABELS_SHOWN, commonest_labels


def say(line: str) -> None:
    """A line of its own on standard error."""
    print_note(line)


def say_next(words: Sequence[str]) -> None:
    """What to type next, as a shell reads it. words: a verb with its arguments."""
    print(f"next: {shlex.join(['bothways', *words])}")


def free_name(name: str) -> str:
    """The name, or the first of `name2`, `name3`, … that is not there yet, for what is made anew."""
    numbered = (f"{name}{number}" for number in itertools.count(2))
    return next(free for free in itertools.chain([name], numbered) if not Path(free).exists())


def figure_lines(figures: Mapping[str, Any]) -> list[str]:
    """Figures of merit for the terminal: the numbers, those by label, and a confusion matrix that is not too large."""
    console = Console(width=120)
    numbers = [f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items() if isinstance(value, float)]
    with console.capture() as capture:
        if figures.get("labels"):
            by_label = Table("label", "precision", "recall", "F1", "support")
            for label, values in commonest_labels(figures["labels"]):
                *ratios, support = values.values()
                by_label.add_row(escape(label), *(f"{value:.3f}" for value in ratios), f"{support:,}")
            console.print(by_label)
            if len(figures["labels"]) > MAX_LABELS_SHOWN:
                console.print(f"the {MAX_LABELS_SHOWN} commonest of {len(figures['labels']):,} labels; --json has all")
        if "confusion_left_out" in figures:
            console.print(f"no confusion matrix: {figures['confusion_left_out']}; --json has the commonest mistakes")
        if "confusion" in figures and len(figures["confusion"]) <= 12:
            labels = list(figures["labels"])
            confusion = Table("truth ↓ predicted →", *map(escape, labels))
            for label, counts in zip(labels, figures["confusion"], strict=True):
                confusion.add_row(escape(label), *(f"{count:,}" for count in counts))
            console.print(confusion)
    return ["   ".join(numbers), *capture.get().splitlines()]
