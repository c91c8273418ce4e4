"""How wide what a verb prints may be, and words in lines of that width."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Iterable

PIPE_COLUMNS = 100  # where the output is a file or a pipe: as many as read well in an editor


def screen_width() -> int:
    """Columns of the terminal; of a file or a pipe `PIPE_COLUMNS`."""
    return shutil.get_terminal_size((PIPE_COLUMNS, 24)).columns


def print_lines(lines: Iterable[str]) -> None:
    """Print lines, at a terminal broken between words; a file or a pipe gets them whole."""
    for line in lines:
        print("\n".join(wrapped(line, screen_width())) if sys.stdout.isatty() else line)


def wrapped(line: str, width: int) -> list[str]:
    """A line in lines of whole words; a command behind a colon so that it can still be pasted."""
    said, colon, command = line.partition(": bothways ")
    if not colon:
        found = textwrap.wrap(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        return found or [line]
    words = [f"{said}: bothways", *re.findall(r"'[^']*'|\"[^\"]*\"|\S+", command)]
    return filled(words, width, indent="  ", carry=" \\")


def filled(items: Iterable[str], width: int, *, gap: str = " ", indent: str = "", carry: str = "") -> list[str]:
    """Items in lines of at most `width`, none of them cut. gap: between two. indent: of all lines but the first.
    carry: what ends a line that goes on."""
    lines: list[str] = []
    line = ""
    for item in items:
        if line and len(line) + len(gap) + len(item) + len(carry) > width:
            lines.append(line + carry)
            line = indent + item
        else:
            line = f"{line}{gap}{item}" if line else item
    return [*lines, line] if line else lines
