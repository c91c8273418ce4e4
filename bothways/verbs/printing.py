"""What the verbs print: tables, figures of merit, and lines on standard error."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bothways.progress import print_note
from bothways.verbs.screen import filled, screen_width

MAX_PRINTED_LABELS = 12  # of a matrix that is printed
GAP = 3  # between two columns of a table
TEXT_COLUMNS = 20  # of the screen that a column of texts has at least, if they are as long
_NUMBER = re.compile(r"[-\d—]")  # how a cell begins that stands at the right and is never broken


def say(line: str) -> None:
    """A line of its own on standard error."""
    print_note(line)


def size_in_words(size: int) -> str:
    """Bytes as `640 B`, `12.3 kB`, `4.5 MB`."""
    for unit, factor in (("MB", 1e6), ("kB", 1e3)):
        if size >= factor / 10 and size >= 1e3:
            return f"{size / factor:,.1f} {unit}"
    return f"{size} B"


def table_lines(heads: Sequence[str], rows: Sequence[Sequence[str]], least: Sequence[str] = ()) -> list[str]:
    """A table no wider than the terminal: heads and texts are wrapped between words.

    least: heads of columns that are left out where there is no room even so, the first of them first; a line says so.
    """
    columns = [[head, *cells] for head, *cells in zip(heads, *rows, strict=True)]
    kept = list(columns)
    for head in least:
        if sum(map(_least_width, kept)) + GAP * len(kept) <= screen_width():
            break
        kept = [column for column in kept if column[0] != head]
    left_out = [head for head in heads if head not in [column[0] for column in kept]]
    note = f"(no room for {', '.join(left_out)}: a wider terminal shows more)"
    return [*_rendered(kept), *(textwrap.wrap(note, screen_width()) if left_out else [])]


def _least_width(column: Sequence[str]) -> int:
    """Of a column, its head first: no number and no word is broken, and a longer text has `TEXT_COLUMNS`."""
    cells = column[1:]
    words = max(len(word) for text in column for word in [*text.split(), ""])
    longest = max(map(len, cells), default=0)
    return max(words, longest if _is_of_numbers(cells) else min(longest, TEXT_COLUMNS))


def _is_of_numbers(cells: Sequence[str]) -> bool:
    return all(_NUMBER.match(cell) for cell in cells)


def _rendered(columns: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table; what room there is goes to the columns that have too little, a character each in turn."""
    widths = [_least_width(column) for column in columns]
    room = screen_width() - sum(widths) - GAP * len(widths)
    while room > 0 and (narrow := [n for n, column in enumerate(columns) if widths[n] < max(map(len, column))]):
        for number in narrow[:room]:
            widths[number] += 1
        room -= len(narrow)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for (head, *cells), width in zip(columns, widths, strict=True):
        table.add_column(Text(head), justify="right" if _is_of_numbers(cells) else "left", width=width)
    for row in zip(*(column[1:] for column in columns), strict=True):
        table.add_row(*map(Text, row))
    console = Console(width=max(screen_width(), sum(widths) + GAP * len(widths)), highlight=False)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines() if line.strip()]


def say_next(words: Sequence[str]) -> None:
    """What to type next, as a shell reads it. words: a verb with its arguments."""
    print(f"next: {shlex.join(['bothways', *words])}")


def figure_lines(figures: Mapping[str, Any]) -> list[str]:
    """Figures of merit for the terminal: the numbers, those by label, and a confusion matrix that is not too large."""
    from bothways.tasks.metrics import MAX_LABELS_SHOWN  # torch takes seconds, and most that is printed needs none

    numbers = [f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items() if isinstance(value, float)]
    lines = filled(numbers, screen_width(), gap="   ")
    if labels := figures.get("labels"):
        lines += _label_lines(labels)
        if len(labels) > MAX_LABELS_SHOWN:
            lines.append(f"the {MAX_LABELS_SHOWN} commonest of {len(labels):,} labels; --json has all")
    if "confusion_left_out" in figures:
        lines.append(f"no confusion matrix: {figures['confusion_left_out']}; --json has the commonest mistakes")
    if "confusion" in figures and len(figures["confusion"]) <= MAX_PRINTED_LABELS:
        lines += _confusion_lines(list(figures["labels"]), figures["confusion"])
    return lines


def _label_lines(labels: Mapping[str, Mapping[str, Any]]) -> list[str]:
    from bothways.tasks.metrics import commonest_labels

    rows = []
    for label, values in commonest_labels(labels):
        *ratios, support = values.values()
        rows.append([label, *(f"{value:.3f}" for value in ratios), f"{support:,}"])
    return table_lines(
        ["label", "precision", "recall", "F1", "support"], rows, least=["support", "recall", "precision"]
    )


def _confusion_lines(labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> list[str]:
    """A matrix; where the labels are too long to stand over its columns, their numbers do."""
    numbered = TEXT_COLUMNS + sum(len(label) + GAP for label in labels) > screen_width()
    heads = [str(number) for number in range(1, len(labels) + 1)] if numbered else list(labels)
    names = [f"{head} {label}" for head, label in zip(heads, labels, strict=True)] if numbered else labels
    rows = [[name, *(f"{count:,}" for count in counts)] for name, counts in zip(names, confusion, strict=True)]
    cells = [max(len(text) for text in column) for column in zip(heads, *(row[1:] for row in rows), strict=True)]
    if TEXT_COLUMNS + sum(cells) + GAP * len(cells) > screen_width():
        return ["no room for the confusion matrix: a wider terminal shows it, --json has it"]
    return table_lines(["truth ↓ predicted →", *heads], rows)
