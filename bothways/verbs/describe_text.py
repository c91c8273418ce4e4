"""What `bothways info` says of vocabularies and token stores."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from bothways.data.lengths import documents_in_words, few_held_out, length_histogram
from bothways.data.store import TokenStore
from bothways.data.store_writer import FIRST_HELD_OUT
from bothways.errors import as_shown
from bothways.outputs import free_name
from bothways.text.corpus_report import CorpusReport
from bothways.text.tokenizer import Tokenizer
from bothways.text.tokenizer_backend import KINDS_IN_WORDS
from bothways.verbs.description import Description


def describe_vocabulary(path: Path) -> Description:
    """A directory with a tokenizer."""
    tokenizer = Tokenizer.load(path)
    facts: dict[str, Any] = {
        "vocabulary": str(path),
        "kind": tokenizer.kind,
        "pieces": tokenizer.vocab_size,
        "uncased": tokenizer.lowercase,
        "fingerprint": tokenizer.fingerprint,
    }
    case = "lower-cases its text, without accents" if tokenizer.lowercase else "keeps capitals and accents"
    name = shlex.quote(str(path))
    return Description(
        [
            f"{path}: a {KINDS_IN_WORDS[tokenizer.kind]} vocabulary of {tokenizer.vocab_size:,} pieces, which {case}",
            f"fingerprint: {tokenizer.fingerprint}",
            f"used by: bothways prepare TEXT --tokenizer {name} --out {free_name('store')}",
        ],
        facts,
    )


def describe_store(path: Path, recipe: str | None) -> Description:
    """A token store, with the lengths of its sentences, and what a recipe would see of it."""
    store = TokenStore(path)
    lengths = length_histogram(store)
    lines = [*store_lines(store), *_remarks(store), *lengths.lines()]
    if recipe is not None:
        from bothways.verbs.describe_batch import epoch_lines  # torch takes seconds

        lines += epoch_lines(store, recipe)
    return Description(
        lines,
        {**store.manifest, "lengths": lengths.rows},
        f"bothways pretrain {shlex.quote(str(path))} --size mini --out {free_name('run')}",
    )


def store_lines(store: TokenStore) -> list[str]:
    """A store in words: its size, its text, its held-out part."""
    manifest = store.manifest
    held_out = store.split("validation")
    unknown = manifest["unknown_tokens"] / max(1, manifest["tokens"])
    lines = [
        f"{as_shown(store.directory)}: {documents_in_words(manifest['documents'])}, "
        f"{manifest['sentences']:,} sentences, "
        f"{manifest['tokens']:,} tokens ({unknown:.3%} unknown), fingerprint {store.fingerprint}",
        f"text: {store.sources_in_words()}",
        f"held out: {documents_in_words(held_out.documents)}, {held_out.tokens:,} tokens",
    ]
    if few := few_held_out(held_out.documents):
        lines.append(few)
    elif manifest["documents"] <= FIRST_HELD_OUT:
        lines.append(
            f"none is held out of {FIRST_HELD_OUT} documents or fewer: all are trained on, and nothing is evaluated"
        )
    if manifest["documents_without_words"]:
        lines.append(f"without words: {manifest['documents_without_words']:,} documents")
    return lines


def _remarks(store: TokenStore) -> list[str]:
    """What was left out of a store's text, and why."""
    return CorpusReport.from_dict(store.manifest["corpus"]).lines()
