"""`bothways prepare SOURCE… --tokenizer DIR --out STORE`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bothways.data.prepare import PrepareOptions, begin_store, join_store, make_parts
from bothways.data.store import TokenStore
from bothways.data.store_parts import StoreParts, open_store_parts
from bothways.data.store_writer import STORE_FILES
from bothways.errors import UserError
from bothways.mirrors import output_as_it_is, output_folder
from bothways.outputs import free_name
from bothways.progress import ByteProgress
from bothways.text.sources import resolve_sources
from bothways.text.tokenizer import Tokenizer
from bothways.verbs.flags import parse
from bothways.verbs.parts_arguments import PartsArguments, make_on_cluster, part_command, say_share
from bothways.verbs.printing import say_next
from bothways.verbs.source_arguments import SourceArguments


@dataclass(frozen=True, kw_only=True)
class PrepareArguments(PartsArguments, SourceArguments):
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
    share = options.share(options.overwrite)
    if options.on is not None and options.workers is not None:
        raise UserError(f"--workers {options.workers}: of this machine; --on {options.on} has a process on each core")
    command, url = part_command("prepare", arguments), options.parts_url(options.out)
    if share is not None:
        out = output_as_it_is(options.out, STORE_FILES)
        begun = _begun(options, out, command, url, trust=True)
        if isinstance(begun, TokenStore):
            _say(options, begun, done_already=True)
        else:
            say_share(begun.parts, share, make_parts(begun, share, options.workers))
        return
    with output_folder(options.out, STORE_FILES, only_ours=options.overwrite) as out:
        begun = _begun(options, out, command, url)
        store = begun if isinstance(begun, TokenStore) else _made(options, begun, url)
    if isinstance(begun, StoreParts) and url is not None:
        begun.parts.remove()
    _say(options, store, done_already=begun is store)


def _begun(
    options: PrepareArguments, out: Path, command: Sequence[str], url: str | None, *, trust: bool = False
) -> StoreParts | TokenStore:
    """The parts of the store, or the store where it is there already. url, trust: as of `StoreParts`."""
    return begin_store(
        StoreParts(out, overwrite=options.overwrite, command=command, trust=trust, url=url),
        resolve_sources(options.sources),
        Tokenizer.load(options.tokenizer),
        PrepareOptions(options.corpus_options(), options.validation, options.workers, options.language),
    )


def _made(options: PrepareArguments, begun: StoreParts, url: str | None) -> TokenStore:
    """The store of all its parts."""
    if options.on is not None:
        _make_on_cluster(options.on, begun, url)
    else:
        make_parts(begun, None, options.workers)
    return join_store(begun)


def _say(options: PrepareArguments, store: TokenStore, done_already: bool) -> None:
    """What the store is, and what to type next."""
    from bothways.data.unknown_tokens import unknown_in_store  # torch takes seconds, and --help needs none
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


class _Counts(NamedTuple):
    """What `ByteProgress` shows."""

    documents: int
    bytes_read: int


def _make_on_cluster(on: str, begun: StoreParts, url: str | None) -> None:
    numbers = begun.parts.missing()
    done = _Counts(0, 0)
    with ByteProgress("prepare", begun.size_of(numbers)) as progress:
        progress.wait(f"prepare  waiting for {on} …")

        def on_made(number: int, documents: int) -> None:
            nonlocal done
            done = _Counts(done.documents + documents, done.bytes_read + begun.size_of([number]))
            progress.update(done)

        open_job = partial(open_store_parts, begun.out.absolute(), url)
        make_on_cluster(on, begun.parts, open_job, "core", on_made)
