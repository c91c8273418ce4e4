"""`bothways tokenizer` and `bothways prepare`: text → vocabulary → token store."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from bothways.data.prepare import prepare as prepare_store
from bothways.errors import UserError
from bothways.files import replace_directory, require_ours, require_writable
from bothways.recipes import parse
from bothways.text.corpus import CorpusOptions, CorpusReport, read_documents, resolve_sources
from bothways.text.wordpiece import VOCABULARY_FILES, WordPieceTokenizer
from bothways.train.progress import duration


@dataclass(frozen=True)
class SourceArguments:
    """Where text comes from.

    sources: files (.txt .md .jsonl .csv .tsv .parquet, also .gz and .zst), folders, globs, or `python-docs:`.
    text_column: of jsonl, csv and parquet. documents: a .txt is one document, or several parted by blank lines with
    one sentence a line. skip_bad: count what cannot be read and go on, instead of stopping.
    """

    sources: Positional[tuple[str, ...]]
    text_column: str = "text"
    documents: Literal["file", "blank-line"] = "file"
    skip_bad: bool = False

    def corpus_options(self) -> CorpusOptions:
        return CorpusOptions(text_column=self.text_column, documents=self.documents, skip_bad=self.skip_bad)


@dataclass(frozen=True, kw_only=True)
class TokenizerArguments(SourceArguments):
    """vocab_size: pieces to learn. cased: keep capitals and accents. min_frequency: of a piece, to be kept."""

    out: str
    vocab_size: int = 30522
    cased: bool = False
    min_frequency: int = 2


def tokenizer(arguments: Sequence[str]) -> None:
    """`bothways tokenizer SOURCE… --vocab-size V --out DIR`."""
    options = parse(
        "tokenizer",
        TokenizerArguments,
        arguments,
        "Learn a WordPiece vocabulary. Example: bothways tokenizer texts/ --vocab-size 8192 --out vocabulary",
    )
    out = Path(options.out)
    require_ours(out, VOCABULARY_FILES)
    require_writable(out)
    trained, report = train_tokenizer(options, options.vocab_size, not options.cased, options.min_frequency)
    with replace_directory(out) as directory:
        trained.save(directory)
    for line in report.lines():
        print(line)
    print(f"{options.out}: {trained.vocab_size:,} pieces, fingerprint {trained.fingerprint}")
    print(f"next: bothways prepare {' '.join(options.sources)} --tokenizer {options.out} --out store")


def train_tokenizer(
    source: SourceArguments, vocab_size: int, lowercase: bool, min_frequency: int = 2
) -> tuple[WordPieceTokenizer, CorpusReport]:
    """Learn a vocabulary of the sources' documents, with progress on standard error."""
    sources = resolve_sources(source.sources)
    report = CorpusReport()

    def texts() -> Iterator[str]:
        nonlocal report
        report = CorpusReport()
        bar = ByteProgress("tokenizer", sum(one.size for one in sources))
        for document in read_documents(sources, source.corpus_options(), report):
            yield document.text
            bar.update(report, None)

    trained = WordPieceTokenizer.train(texts, vocab_size, lowercase, min_frequency)
    if not report.documents:
        raise UserError(report.why_nothing([one.name for one in sources]))
    return trained, report


@dataclass(frozen=True, kw_only=True)
class PrepareArguments(SourceArguments):
    """tokenizer: a vocabulary's or a model's directory. validation: share of documents held out. workers: processes;
    by default one a core."""

    tokenizer: str
    out: str
    validation: float = 0.02
    workers: int | None = None


def prepare(arguments: Sequence[str]) -> None:
    """`bothways prepare SOURCE… --tokenizer DIR --out STORE`."""
    options = parse(
        "prepare",
        PrepareArguments,
        arguments,
        "Turn text into a token store. Example: bothways prepare texts/ --tokenizer vocabulary --out store",
    )
    bar = ByteProgress("prepare", sum(one.size for one in resolve_sources(options.sources)))
    store = prepare_store(
        options.sources,
        WordPieceTokenizer.load(options.tokenizer),
        Path(options.out),
        options.corpus_options(),
        validation=options.validation,
        workers=options.workers,
        on_progress=bar.update,
    )
    from bothways.verbs.info import store_lines

    print("\n".join(store_lines(store)))
    print(f"next: bothways pretrain {options.out} --size mini --out run")


class ByteProgress:
    """MB/s and ETA by the bytes read, on standard error; silent for jobs of under two seconds."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total = title, total
        self._began = self._said = time.monotonic()
        self._every = 0.5 if sys.stderr.isatty() else 10.0

    def update(self, report: CorpusReport, tokens: int | None) -> None:
        now = time.monotonic()
        elapsed = now - self._began
        if elapsed < 2 or now - self._said < self._every:
            return
        self._said = now
        done = max(1, report.bytes_read)
        left = elapsed * max(0, self.total - done) / done
        counted = f"{report.documents:,} documents" + (f", {tokens:,} tokens" if tokens is not None else "")
        line = f"{self.title}  {counted}  {done / 1e6 / elapsed:.1f} MB/s  ETA {duration(left)}"
        in_place = sys.stderr.isatty()
        print(
            f"\r\x1b[K{line}" if in_place else line, end="" if in_place and done < self.total else "\n", file=sys.stderr
        )
