"""Errors that a user can cause, as one clear line each."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user can mend: names the file and line, or the option, its value and what would be accepted.

    The command line prints the message on standard error as one line and exits with code 2. Line ends in what it
    quotes, a column's name or a label, become blanks.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(" ".join(message.splitlines()))


class TruncationWarning(UserWarning):
    """Text was cut to a model's length; the message says how much."""


def warn_truncated(message: str) -> None:
    """Give a `TruncationWarning` at the user's own line."""
    warn_at_caller(message, TruncationWarning)


def warn_at_caller(message: str, category: type[Warning]) -> None:
    """Give a warning at the user's own line: the first frame outside of this package."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "bothways":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def closest(name: str, accepted: Iterable[str]) -> str:
    """`", did you mean 'x'?"` for the accepted name most like `name`, or an empty string when none is near."""
    matches = difflib.get_close_matches(name, list(accepted), n=1)
    return f", did you mean {matches[0]!r}?" if matches else ""
