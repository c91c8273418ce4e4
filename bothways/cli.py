"""`bothways <verb>`: find the verb, run it, and turn a UserError into one line and exit code 2.

Nothing heavy is imported before a verb is known, so `bothways --help` answers at once.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from bothways.errors import UserError, closest
from bothways.verbs import VERBS
from bothways.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default the process's own.

    Returns the exit code: 0; 2 for a UserError, or a file that cannot be read or written; 130 after Ctrl-C; 141 where
    the reader of the output has closed it; 128 + n where a training was stopped by signal n.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
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
    try:
        if verb not in VERBS:
            raise UserError(f"unknown verb {verb!r}{closest(verb, VERBS)}; accepted: {', '.join(VERBS)}")
        code = _function_of(verb)(rest) or 0
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"bothways: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bothways: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.filename is not None:
            print(f"bothways: {error.filename}: {error.strerror}", file=sys.stderr)
            return 2
        print(f"bothways: the output cannot be written: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2


def _function_of(verb: str) -> Callable[[Sequence[str]], int | None]:
    """`run_VERB` in verbs/VERB.py; the demo's is in demo.py, above the other verbs."""
    module = importlib.import_module("bothways.demo" if verb == "demo" else f"bothways.verbs.{verb}")
    function: Callable[[Sequence[str]], int | None] = getattr(module, f"run_{verb}")
    return function


def _say_warning(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:
    """A warning as a line of our own, in place of Python's two with file and line."""
    print(f"bothways: {message}", file=sys.stderr)


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
