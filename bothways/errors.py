"""Errors that a user can cause, as one clear line each."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user can mend: names the file and line, or the option, its value and what would be accepted.

    The command line prints the message on standard error as one line and exits with code 2.
    """


class TruncationWarning(UserWarning):
    """Text was cut to a model's length; the message says how much."""


def closest(name: str, accepted: Iterable[str]) -> str:
    """`", did you mean 'x'?"` for the accepted name most like `name`, or an empty string when none is near."""
    matches = difflib.get_close_matches(name, list(accepted), n=1)
    return f", did you mean {matches[0]!r}?" if matches else ""
