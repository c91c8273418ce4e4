"""`bothways tokenizer SOURCE… --out DIR`: a vocabulary learnt from text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bothways.errors import UserError
from bothways.files import refuse_foreign_files, replace_directory, require_writable
from bothways.progress import ByteProgress
from bothways.text.corpus import CorpusReport, read_documents
from bothways.text.folding import CharacterCounts, folding_message
from bothways.text.sources import resolve_sources
from bothways.text.tokenizer import VOCABULARY_FILES, Tokenizer
from bothways.verbs.flags import parse
from bothways.verbs.source_arguments import SourceArguments


@dataclass(frozen=True, kw_only=True)
class TokenizerArguments(SourceArguments):
    """vocab_size: pieces to learn. cased: keep capitals and accents. keep_marks: lower case, but accents and other
    marks of letters stay, as Japanese, Korean, Hindi or Vietnamese need them. min_frequency: of a piece, to be kept."""

    out: str
    vocab_size: int = 30522
    cased: bool = False
    keep_marks: bool = False
    min_frequency: int = 2


def run_tokenizer(arguments: Sequence[str]) -> None:
    """`bothways tokenizer SOURCE… --vocab-size V --out DIR`."""
    options = parse(
        "tokenizer",
        TokenizerArguments,
        arguments,
        "Learn a WordPiece vocabulary. Example: bothways tokenizer texts/ --vocab-size 8192 --out vocabulary",
    )
    out = Path(options.out)
    refuse_foreign_files(out, VOCABULARY_FILES)
    require_writable(out)
    counts = CharacterCounts()
    trained, report = train_tokenizer(
        options,
        options.vocab_size,
        not options.cased,
        options.min_frequency,
        strip_accents=False if options.keep_marks else None,
        on_text=counts.add,
    )
    with replace_directory(out) as directory:
        trained.save(directory)
    for line in report.lines():
        print(line)
    if message := folding_message(counts, trained.normalise):
        print(message)
    if trained.vocab_size < options.vocab_size:
        print(
            f"the text has no more pieces that occur at least {options.min_frequency} times: {trained.vocab_size:,} of "
            f"{options.vocab_size:,} asked for"
        )
    print(f"{options.out}: {trained.vocab_size:,} pieces, fingerprint {trained.fingerprint}")
    print(f"next: bothways prepare {' '.join(options.sources)} --tokenizer {options.out} --out store")


def train_tokenizer(
    arguments: SourceArguments,
    vocab_size: int,
    lowercase: bool,
    min_frequency: int = 2,
    *,
    strip_accents: bool | None = None,
    on_text: Callable[[str], None] | None = None,
) -> tuple[Tokenizer, CorpusReport]:
    """Learn a vocabulary of the sources' documents, with progress on standard error.

    strip_accents: as `Tokenizer.train`. on_text: called with every document.
    """
    sources = resolve_sources(arguments.sources)
    report = CorpusReport()
    passes = 0

    def texts() -> Iterator[str]:
        nonlocal report, passes
        passes += 1
        report = CorpusReport()
        with ByteProgress("tokenizer", sum(source.size for source in sources)) as progress:
            for document in read_documents(sources, arguments.corpus_options(), report):
                if on_text is not None and passes == 1:
                    on_text(document.text)
                yield document.text
                progress.update(report)

    trained = Tokenizer.train(texts, vocab_size, lowercase, min_frequency, strip_accents)
    if not report.documents:
        raise UserError(report.no_text_message([source.name for source in sources]))
    return trained, report
