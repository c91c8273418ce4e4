"""`bothways prepare SOURCE… --tokenizer DIR --out STORE`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bothways.data.prepare import PrepareOptions
from bothways.data.prepare import prepare as prepare_store
from bothways.verbs.flags import parse
from bothways.verbs.source_arguments import SourceArguments


@dataclass(frozen=True, kw_only=True)
class PrepareArguments(SourceArguments):
    """tokenizer: a vocabulary's or a model's directory. validation: share of documents held out. workers: processes;
    by default one a core. language: by whose rules sentences are cut, de or fr say, by ISO 639-1."""

    tokenizer: str
    out: str
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
    store = prepare_store(
        options.sources,
        options.tokenizer,
        options.out,
        PrepareOptions(options.corpus_options(), options.validation, options.workers, options.language),
    )
    from bothways.verbs.info import store_lines

    print("\n".join(store_lines(store)))
    print(f"next: bothways pretrain {options.out} --size mini --out run")
