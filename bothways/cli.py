"""`bothways <verb>`: find the verb, run it, and turn a UserError into one line and exit code 2.

Nothing heavy is imported before a verb is known, so `bothways --help` answers at once.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence

from bothways.errors import UserError, closest

# verb: (module with a `run(arguments)`, function, what it does)
VERBS: dict[str, tuple[str, str, str]] = {
    "demo": ("bothways.demo", "run", "the whole way on text that is already on this machine, in minutes"),
    "tokenizer": ("bothways.verbs.text", "tokenizer", "learn a WordPiece vocabulary from text"),
    "prepare": ("bothways.verbs.text", "prepare", "turn text into a token store"),
    "pretrain": (
        "bothways.verbs.training",
        "pretrain",
        "train an encoder by masked LM and next sentence, or a model of the next token",
    ),
    "finetune": ("bothways.verbs.training", "finetune", "train a model for a task on labelled rows"),
    "evaluate": ("bothways.verbs.measuring", "evaluate", "measure a model on labelled rows, or on held-out text"),
    "predict": ("bothways.verbs.measuring", "predict", "predict every row of a table"),
    "compare": ("bothways.verbs.comparing", "compare", "train what came before BERT beside it, on the same rows"),
    "fill": ("bothways.verbs.asking", "fill", "say what could stand at each [MASK]"),
    "classify": ("bothways.verbs.asking", "classify", "give texts their label"),
    "tag": ("bothways.verbs.asking", "tag", "mark entities, or label every word"),
    "answer": ("bothways.verbs.asking", "answer", "answer a question from a text"),
    "generate": ("bothways.verbs.generating", "generate", "go on with a text, a token at a time"),
    "score": ("bothways.verbs.generating", "score", "say how likely a text is, and which word comes next"),
    "suggest": ("bothways.verbs.generating", "suggest", "suggest the next word"),
    "chat": ("bothways.verbs.generating", "chat", "talk with a model that learnt from conversations"),
    "embed": ("bothways.verbs.asking", "embed", "turn texts into vectors"),
    "similar": ("bothways.verbs.asking", "similar", "find the lines of a file most like a text"),
    "export": (
        "bothways.verbs.export",
        "export",
        "write a model for ONNX or sentence-transformers",
    ),
    "bench": ("bothways.verbs.bench", "bench", "measure how fast a model is on this machine"),
    "explain": ("bothways.verbs.explaining", "explain", "look inside a model: attention, embeddings, predictions"),
    "info": ("bothways.verbs.info", "info", "say what a store, a model, a run or a vocabulary is"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code: 0, 2 for a UserError, 128 + n when stopped by signal n."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        import bothways

        print(f"bothways {bothways.__version__}")
        return 0
    verb, *rest = arguments
    warnings.showwarning = _say_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter gets its number
    try:
        if verb not in VERBS:
            raise UserError(f"unknown verb {verb!r}{closest(verb, VERBS)}; accepted: {', '.join(VERBS)}")
        module, function, _ = VERBS[verb]
        code = getattr(importlib.import_module(module), function)(rest) or 0
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


def _say_warning(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:
    print(f"bothways: {message}", file=sys.stderr)


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {what}" for verb, (_, _, what) in VERBS.items())
    return (
        "usage: bothways <verb> [arguments]\n\n"
        "A complete BERT system: from your own text to a model that understands it.\n\n"
        f"{verbs}\n\n"
        "`bothways <verb> --help` shows a verb's options and an example. Every training verb takes --recipe FILE.toml."
    )


if __name__ == "__main__":
    sys.exit(main())
