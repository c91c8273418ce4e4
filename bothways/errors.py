"""Errors that a user can cause, as one clear line each."""

from __future__ import annotations

import contextlib
import contextvars
import difflib
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

# The packages of each extra in pyproject.toml, so that a hint works wherever Bothways itself was installed from.
EXTRAS = {
    "report": "matplotlib tensorboard",
    "baselines": "scikit-learn gensim nltk",
    "onnx": "onnx onnxscript onnxruntime",
    "umap": "umap-learn",
    "serve": "fastapi uvicorn httptools uvloop prometheus-client",
    "client": "httpx2",
    "otel": "fastapi[opentelemetry]",
    "ray": "'ray[client,serve]'",
    "s3": "s3fs",
    "gs": "gcsfs",
    "demo": "matplotlib tensorboard scikit-learn gensim nltk",
}

_collected: contextvars.ContextVar[list[tuple[type[Warning], str]] | None] = contextvars.ContextVar(
    "collected warnings", default=None
)
_shown_as: list[tuple[re.Pattern[str], str]] = []  # what paths are called to people, who know them by other names
_as_flags = False  # how `option` spells; of the whole process, as threads of a command raise errors, too


class UserError(ValueError):
    """Something the user can mend: names the file and line, or the option, its value and what would be accepted.

    The command line prints the message on standard error as one line and exits with code 2. Line ends in what it
    quotes, a column's name or a label, become blanks, and a copy of a remote file is called by its URL (`as_shown`).
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(as_shown(" ".join(message.splitlines())))


class ProcessError(UserError):
    """A `UserError` of one process among several, which is its own to report: the others meet with something else."""


class TruncationWarning(UserWarning):
    """Text was cut to a model's length; the message says how much."""


class UnknownTokensWarning(UserWarning):
    """Text consists of what the model's vocabulary does not have, `[UNK]`; the message says how much of how many."""


class PrecisionWarning(UserWarning):
    """Another precision is used than was asked for; the message says why."""


def show_as(pattern: re.Pattern[str], name: str) -> None:
    """Have paths called otherwise where a person reads them (`as_shown`). name: as `re.sub` takes it."""
    _shown_as.append((pattern, name))


def as_shown(text: str | Path) -> str:
    """A text for people, with the names by which they know the paths in it: the URL of a remote file in place of its
    copy on this machine."""
    text = str(text)
    for pattern, name in _shown_as:
        text = pattern.sub(name, text)
    return text


def warn_truncated(message: str) -> None:
    """Give a `TruncationWarning` at the user's own line."""
    warn_at_caller(message, TruncationWarning)


def warn_unknown(message: str) -> None:
    """Give an `UnknownTokensWarning` at the user's own line."""
    warn_at_caller(message, UnknownTokensWarning)


def warn_at_caller(message: str, category: type[Warning]) -> None:
    """Give a warning at the user's own line, the first frame outside of this package and of its cached properties; or
    to `collected_warnings`."""
    message = as_shown(message)
    if (collected := _collected.get()) is not None:
        collected.append((category, message))
        return
    level, frame = 2, sys._getframe(1)
    inner = ("bothways", "functools")
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in inner:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


@contextlib.contextmanager
def collected_warnings(into: list[tuple[type[Warning], str]]) -> Iterator[None]:
    """Within the block, in this thread, what would be warned of is appended to the list instead."""
    token = _collected.set(into)
    try:
        yield
    finally:
        _collected.reset(token)


def option(name: str, *value: object) -> str:
    """An option as its user types it: `top_k` in Python, `--top-k` under the command line; with a value `top_k=0` and
    `--top-k 0`. Every message below `verbs/` names options by this.

    value: nothing, or one value; on the command line a switch that is True stands alone, and the values of a tuple
    stand one after the other.
    """
    if not _as_flags:
        return "=".join([name, *(repr(str(entry) if isinstance(entry, Path) else entry) for entry in value)])
    flag = name.replace("_", "-")
    if value and isinstance(value[0], bool):
        return f"--{flag}" if value[0] else f"--no-{flag}"
    entries = value[0] if value and isinstance(value[0], tuple | list) else value
    return " ".join([f"--{flag}", *map(str, entries)])


def command(verb: str, subject: str = "") -> str:
    """A verb as its user types it, as `option` does options: `bothways.finetune('tag', …)` in Python,
    `bothways finetune tag` on the command line, backticks included."""
    if _as_flags:
        return f"`{' '.join(['bothways', verb, subject]).strip()}`"
    return f"`bothways.{verb}({repr(subject) + ', ' if subject else ''}…)`"


def loading(model: str) -> str:
    """How a model is named by its user, as `option` does options: `bothways.load('mini')` in Python, `--model mini` on
    the command line, backticks included."""
    return f"`--model {model}`" if _as_flags else f"`bothways.load({model!r})`"


def only_in_python(words: str) -> str:
    """Words of a message that hold for Python's functions and for no verb; nothing under the command line."""
    return "" if _as_flags else words


@contextlib.contextmanager
def options_as_flags(flags: bool = True) -> Iterator[None]:
    """Within the block `option` spells as the command line does; without `flags` as Python and the server's fields."""
    global _as_flags
    before, _as_flags = _as_flags, flags
    try:
        yield
    finally:
        _as_flags = before


def options_are_flags() -> bool:
    """Whether `option` spells as the command line does now, for another process that is to do the same."""
    return _as_flags


def install_command(extra: str) -> str:
    """The command that installs the packages of an extra, as the end of a message."""
    return f"pip install {EXTRAS[extra]} (the extra {extra!r} of Bothways)"


def closest(name: str, accepted: Iterable[str]) -> str:
    """`", did you mean 'x'?"` for the accepted name most like `name`, or an empty string when none is near."""
    matches = difflib.get_close_matches(name, list(accepted), n=1)
    return f", did you mean {matches[0]!r}?" if matches else ""
