"""`bothways tokenizer SOURCE… --out DIR`: a vocabulary learnt from text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bothways.outputs import free_name
from bothways.remote_files import has_file
from bothways.text.vocabulary import VocabularyKind, train_tokenizer
from bothways.verbs.flags import parse
from bothways.verbs.printing import say_next
from bothways.verbs.source_arguments import SourceArguments


@dataclass(frozen=True, kw_only=True)
class TokenizerArguments(SourceArguments):
    """out: the vocabulary's directory. kind: WordPiece as BERT has it, or byte-level BPE as RoBERTa and GPT-2, which
    knows every text and keeps it as it is. vocab_size: pieces to learn. cased: keep capitals and accents. keep_marks:
    lower case, but accents and other marks of letters stay, as Japanese, Korean, Hindi or Vietnamese need them.
    min_frequency: of a piece, to be kept."""

    out: str
    overwrite: bool = False
    kind: VocabularyKind = "wordpiece"
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
        "Learn a vocabulary. Example: bothways tokenizer texts/ --vocab-size 8192 --out vocabulary",
    )
    done_already = not options.overwrite and has_file(options.out, "tokenizer.json")
    trained = train_tokenizer(
        options.sources,
        options.out,
        kind=options.kind,
        vocab_size=options.vocab_size,
        cased=options.cased,
        keep_marks=options.keep_marks,
        overwrite=options.overwrite,
        min_frequency=options.min_frequency,
        **vars(options.corpus_options()),
    )
    done = "done already, " if done_already else ""
    print(f"{options.out}: {done}{trained.vocab_size:,} pieces, fingerprint {trained.fingerprint}")
    store = "store" if done_already else free_name("store")
    say_next(["prepare", *options.words(), "--tokenizer", options.out, "--out", store])
