"""`bothways <verb>`: find the verb, run it, and turn a UserError into one line and exit code 2.

Nothing heavy is imported before a verb is known, so `bothways --help` answers at once.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TextIO

from bothways.errors import UserError, closest, options_as_flags
from bothways.progress import print_note
from bothways.verbs import VERBS
from bothways.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default the process's own.

    Returns the exit code: 0; 2 for a UserError, or a file that cannot be read or written; 130 after Ctrl-C; 141 where
    the reader of the output has closed it; 128 + n where a training was stopped by signal n.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _open_closed_streams()
        with options_as_flags():
            code = _run(arguments)
        sys.stdout.flush()
        return code
    except UserError as error:
        print_note(f"bothways: {' '.join(str(error).split())}")
        return 2
    except KeyboardInterrupt:
        print_note("bothways: stopped")
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has seen enough
        return 141
    except OSError as error:
        if error.filename is not None:
            print_note(f"bothways: {error.filename}: {error.strerror}")
        else:
            print_note(f"bothways: the output cannot be written: {error.strerror}")
        return 2
    finally:
        for stream in (sys.stdout, sys.stderr):
            _discard_what_cannot_be_written(stream)


def _run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        print(f"bothways {__version__}")
        return 0
    verb, *rest = arguments
    warnings.showwarning = _say_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter gets its number
    if verb not in VERBS:
        raise UserError(f"unknown verb {verb!r}{closest(verb, VERBS)}; accepted: {', '.join(VERBS)}")
    try:
        return _function_of(verb)(rest) or 0
    except SystemExit:  # of --help, which has printed
        sys.stdout.flush()
        raise


def _open_closed_streams() -> None:
    """Let a closed standard input be an empty one, and a closed standard error one that nobody reads: else the next
    file that is opened takes the place. Raises UserError where standard output is closed, as the answer goes there."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        raise UserError("standard output is closed; send it to a file or to /dev/null")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _discard_what_cannot_be_written(stream: TextIO | None) -> None:
    """Let what is left in a stream's buffer go nowhere where it cannot be written, as Python tries again at its end."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):  # a stream of another kind has no number, or is closed
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _function_of(verb: str) -> Callable[[Sequence[str]], int | None]:
    """`run_VERB` in verbs/VERB.py; the demo's is in demo.py, above the other verbs."""
    module = importlib.import_module("bothways.demo" if verb == "demo" else f"bothways.verbs.{verb}")
    function: Callable[[Sequence[str]], int | None] = getattr(module, f"run_{verb}")
    return function


def _say_warning(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:
    """A warning as a line of our own, in place of Python's two with file and line."""
    print_note(f"bothways: {message}")


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {what}" for verb, what in VERBS.items())
    return (
        "usage: bothways <verb> [arguments]\n\n"
        "A complete BERT system: from your own text to a model that understands it.\n\n"
        f"{verbs}\n\n"
        "`bothways <verb> --help` shows a verb's options and an example. Every training verb takes --recipe FILE.toml."
    )


if __name__ == "__main__":
    sys.exit(main())
