"""`bothways prepare SOURCE… --tokenizer DIR --out STORE`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from bothways.data.prepare import PrepareOptions
from bothways.data.prepare import prepare as prepare_store
from bothways.data.unknown_tokens import unknown_in_store
from bothways.outputs import free_name
from bothways.remote_files import has_file
from bothways.verbs.flags import parse
from bothways.verbs.printing import say_next
from bothways.verbs.source_arguments import SourceArguments


@dataclass(frozen=True, kw_only=True)
class PrepareArguments(SourceArguments):
    """out: the store's directory; the same command again goes on with it.

    tokenizer: a vocabulary's or a model's directory. validation: share of documents held out. workers: processes;
    by default one a core. language: by whose rules sentences are cut, de or fr say, by ISO 639-1."""

    tokenizer: str
    out: str
    overwrite: bool = False
    validation: float = 0.02
    workers: int | None = None
    language: str = "en"


def run_prepare(arguments: Sequence[str]) -> None:
    """`bothways prepare SOURCE… --tokenizer DIR --out STORE`."""
    options = parse(
        "prepare",
        PrepareArguments,
        arguments,
        "Turn text into a token store. Example: bothways prepare texts/ --tokenizer vocabulary --out store",
    )
    done_already = not options.overwrite and has_file(options.out, "manifest.json")
    store = prepare_store(
        options.sources,
        options.tokenizer,
        options.out,
        PrepareOptions(options.corpus_options(), options.validation, options.workers, options.language),
        overwrite=options.overwrite,
    )
    from bothways.verbs.describe_text import store_lines

    if done_already:
        print(f"{options.out}: done already, of the same files")
    print("\n".join(store_lines(store)))
    unknown = unknown_in_store(store, options.out)
    if unknown is None:
        say_next(["pretrain", options.out, "--size", "mini", "--out", "run" if done_already else free_name("run")])
    else:  # a model of it would learn nothing
        again = shlex.join(["bothways", "tokenizer", *options.words(), "--out", free_name("vocabulary")])
        print(f"{unknown}; learn a vocabulary from this text, and prepare it with that: {again}")
