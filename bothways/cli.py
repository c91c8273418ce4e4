"""`bothways <verb>`: find the verb, run it, and turn a UserError into one line and exit code 2.

Nothing heavy is imported before a verb is known, so `bothways --help` answers at once.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from bothways.errors import ProcessError, UserError, closest, options_as_flags
from bothways.progress import end_line, is_main_process, print_note, waiting
from bothways.verbs import VERBS
from bothways.verbs.command_line import HELP
from bothways.version import __version__

TORCHRUN_SECONDS = 10.0  # in which the first process fails as this one did, and torchrun ends this one
VERSION = ("--version", "-V")


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
        line = " ".join(str(error).split())
        _tell_torchrun(line, alone=isinstance(error, ProcessError))
        _say_at_the_end(line)
        return 2
    except KeyboardInterrupt as interrupt:
        _say_at_the_end(str(interrupt) or "stopped")
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has seen enough
        return 141
    except OSError as error:
        _say_at_the_end(f"{error.filename or 'the output cannot be written'}: {error.strerror}")
        return 2
    finally:
        for stream in (sys.stdout, sys.stderr):
            _discard_what_cannot_be_written(stream)


def _say_at_the_end(line: str) -> None:
    """The last line of a command that fails, below what it has shown of its progress."""
    end_line()
    print_note(f"bothways: {line}")


def _tell_torchrun(line: str, alone: bool) -> None:
    """Let torchrun's own report, which is 40 lines long, have the line. alone: only this process has it to say; else
    the first process says it for all: torchrun ends the others when one has failed."""
    report = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not report or "RANK" not in os.environ:
        return
    said = {"message": line, "extraInfo": {"py_callstack": f"bothways: {line}", "timestamp": str(int(time.time()))}}
    with contextlib.suppress(OSError):
        Path(report).write_text(json.dumps({"message": said}), encoding="utf-8")
    if not alone and os.environ["RANK"] != "0":
        time.sleep(TORCHRUN_SECONDS)


def _run(arguments: Sequence[str]) -> int:
    verb, *rest = arguments or ["help"]
    if verb in ("help", *HELP):
        if not rest:
            print(_help())
            return 0
        verb, rest = rest[0], [*rest[1:], "--help"]
    if verb in VERSION:
        print(_version())
        return 0
    warnings.showwarning = _saying_each_once()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter gets its number
    if verb.startswith("-"):
        known = ("--help", "--version")
        raise UserError(f"unknown option {verb}{closest(verb, known)}; accepted: {', '.join(known)}, or a verb first")
    if verb not in VERBS:
        raise UserError(f"unknown verb {verb!r}{closest(verb, [*VERBS, 'help'])}; accepted: {', '.join(VERBS)}")
    try:
        with waiting(f"bothways {verb}: loading …"):
            function = _function_of(verb)
        return function(rest) or 0
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


def _saying_each_once() -> Callable[..., None]:
    """How a verb shows warnings: as a line of our own in place of Python's two with file and line, and what was said
    once not again, as when a model is opened twice; of several processes the first has it to say."""
    said: set[str] = set()

    def say(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:
        if is_main_process() and str(message) not in said:
            said.add(str(message))
            print_note(f"bothways: {message}")

    return say


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {what}" for verb, what in VERBS.items())
    return (
        "usage: bothways VERB [arguments]\n\n"
        "A complete BERT system: from your own text to a model that understands it.\n\n"
        f"{verbs}\n\n"
        "bothways help VERB   a verb's options and an example\n"
        "bothways --version   the version, and what is compiled"
    )


def _version() -> str:
    """The version, what is compiled and for which instructions, torch and Python."""
    with waiting("bothways --version: loading torch …"):
        import torch

        from bothways.native.loading import describe_library
    return (
        f"bothways {__version__}\nnative library: {describe_library()}\n"
        f"torch {torch.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    )


if __name__ == "__main__":
    sys.exit(main())
