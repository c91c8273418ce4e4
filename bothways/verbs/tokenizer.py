"""`bothways tokenizer SOURCE… --out DIR`: a vocabulary learnt from text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bothways.errors import UserError
from bothways.files import read_json, refuse_foreign_files, replace_directory, require_writable, write_json
from bothways.outputs import BEGIN_ANEW, command_words, file_changes, made_otherwise, option_changes
from bothways.progress import ByteProgress
from bothways.text.corpus import CorpusReport, read_documents
from bothways.text.folding import CharacterCounts, folding_message
from bothways.text.sources import resolve_sources, source_records
from bothways.text.tokenizer import VOCABULARY_FILES, Tokenizer
from bothways.verbs.flags import parse
from bothways.verbs.printing import free_name, say_next
from bothways.verbs.source_arguments import SourceArguments


@dataclass(frozen=True, kw_only=True)
class TokenizerArguments(SourceArguments):
    """vocab_size: pieces to learn. cased: keep capitals and accents. keep_marks: lower case, but accents and other
    marks of letters stay, as Japanese, Korean, Hindi or Vietnamese need them. min_frequency: of a piece, to be kept."""

    out: str
    overwrite: bool = False
    vocab_size: int = 30522
    cased: bool = False
    keep_marks: bool = False
    min_frequency: int = 2


RECORD = "bothways.json"  # beside the vocabulary: what it was made of
DEFAULTS = {field.name: field.default for field in fields(TokenizerArguments) if field.default is not MISSING}


def run_tokenizer(arguments: Sequence[str]) -> None:
    """`bothways tokenizer SOURCE… --vocab-size V --out DIR`."""
    options = parse(
        "tokenizer",
        TokenizerArguments,
        arguments,
        "Learn a WordPiece vocabulary. Example: bothways tokenizer texts/ --vocab-size 8192 --out vocabulary",
    )
    out = Path(options.out)
    refuse_foreign_files(out, (*VOCABULARY_FILES, RECORD))
    require_writable(out)
    record = _record(options)
    if not options.overwrite and _is_done(out, record):
        print(f"{options.out}: done already, {Tokenizer.load(out).vocab_size:,} pieces")
        say_next(_next_command(options, "store"))
        return
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
        write_json(directory / RECORD, {**record, "tokenizer": trained.fingerprint})
    for line in report.lines():
        print(line)
    if message := folding_message(counts, trained.normalise):
        print(message)
    print(f"{options.out}: {trained.vocab_size:,} pieces, fingerprint {trained.fingerprint}")
    say_next(_next_command(options, free_name("store")))


def _record(options: TokenizerArguments) -> dict[str, Any]:
    """What a vocabulary is made of: the files, and the options by name."""
    given = {name: value for name, value in asdict(options).items() if name not in ("sources", "out", "overwrite")}
    return {"format": 1, "sources": source_records(resolve_sources(options.sources)), "options": given}


def _is_done(out: Path, record: dict[str, Any]) -> bool:
    """Whether the vocabulary that is asked for is there. Raises UserError for another one, or one of unknown origin."""
    if not (out / "tokenizer.json").exists():
        return False
    there = read_json(out / RECORD) if (out / RECORD).exists() else {}
    if there.get("tokenizer") != Tokenizer.load(out).fingerprint:
        raise UserError(f"{out} holds a vocabulary, and not what it was made of; {BEGIN_ANEW}")
    changes = file_changes(there["sources"], record["sources"])
    changes += option_changes({**record["options"], **DEFAULTS, **there["options"]}, record["options"])
    if changes:
        raise made_otherwise(out, "a vocabulary", changes)
    return True


def _next_command(options: TokenizerArguments, store: str) -> list[str]:
    """The same text with the same options of reading, as the store wants it."""
    reading = {field.name: getattr(options, field.name) for field in fields(SourceArguments)}
    sources = reading.pop("sources")
    return command_words(["prepare", *sources, "--tokenizer", options.out, "--out", store], reading, DEFAULTS)


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
