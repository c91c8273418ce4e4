"""A vocabulary learnt from text, with what a person should know of the text it was learnt from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal, Unpack

from bothways.errors import UserError, option
from bothways.files import read_json, refuse_foreign_files, replace_directory, require_writable, write_json
from bothways.mirrors import output_folder
from bothways.option_checks import options_from, require_count, require_name, require_path, require_type
from bothways.outputs import begin_anew, file_changes, made_otherwise, option_changes
from bothways.progress import ByteProgress
from bothways.remote_files import url_of
from bothways.text.corpus import CorpusKeywords, CorpusOptions, read_documents
from bothways.text.corpus_report import CorpusReport
from bothways.text.folding import CharacterCounts, folding_message
from bothways.text.sources import Sources, resolve_sources, source_records
from bothways.text.tokenizer import VOCABULARY_FILES, Tokenizer

RECORD = "bothways.json"  # beside a vocabulary: what it was made of
PASSES = {"wordpiece": 2, "byte-bpe": 1}  # in which the text is read
VocabularyKind = Literal["wordpiece", "byte-bpe"]


def train_tokenizer(
    sources: Sources = (),
    out: str | Path | None = None,
    *,
    texts: Iterable[str] | None = None,
    kind: VocabularyKind = "wordpiece",
    vocab_size: int = 30522,
    cased: bool = False,
    keep_marks: bool = False,
    min_frequency: int = 2,
    overwrite: bool = False,
    quiet: bool = False,
    **corpus: Unpack[CorpusKeywords],
) -> Tokenizer:
    """Learn a vocabulary, write it into `out`, or nowhere without one, and return it; one that `out` holds
    already, made of the same text with the same options, is opened as it is.

    sources: files, folders, globs or `python-docs:`, one or several. texts: in place of them, texts in memory, each a
    document. kind: WordPiece as BERT has it, or byte-level BPE as RoBERTa and GPT-2, which knows every text and keeps
    it as it is. vocab_size: pieces to learn. cased: keep capitals and accents. keep_marks: lower case, but accents and
    other marks of letters stay. min_frequency: of a piece, to be kept. overwrite: replace another vocabulary that `out`
    holds. quiet: nothing on the screen; what would stand there goes to the logger `bothways`. corpus: how the text is
    read, the fields of `CorpusOptions`.

    Raises UserError for text that cannot be read, without `skip_bad`, for no text at all, and for a vocabulary too
    small for the characters of the text.
    """
    own = ("vocab_size", "cased", "keep_marks", "min_frequency", "overwrite", "quiet")
    for name in corpus:
        require_name("train_tokenizer", name, [*own, *(field.name for field in fields(CorpusOptions))])
    if url_of(out) is not None:
        with output_folder(str(out), (*VOCABULARY_FILES, RECORD)) as folder:
            return train_tokenizer(
                sources,
                folder,
                texts=texts,
                kind=kind,
                vocab_size=vocab_size,
                cased=cased,
                keep_marks=keep_marks,
                min_frequency=min_frequency,
                overwrite=overwrite,
                quiet=quiet,
                **corpus,
            )
    options = options_from(CorpusOptions, "train_tokenizer", None, corpus)
    for name, value in (("cased", cased), ("keep_marks", keep_marks), ("overwrite", overwrite), ("quiet", quiet)):
        require_type(name, value, bool)
    require_type("kind", kind, VocabularyKind)
    if kind == "byte-bpe" and (cased or keep_marks):
        asked = option("cased" if cased else "keep_marks", True)
        raise UserError(f"{asked}: {option('kind', kind)} keeps every text as it is")
    require_count(vocab_size=vocab_size)
    require_count(0, min_frequency=min_frequency)
    resolved, counts, report = resolve_sources(sources, texts), CharacterCounts(), CorpusReport()
    if out is not None:
        require_path(out=out)
        refuse_foreign_files(Path(out), (*VOCABULARY_FILES, RECORD))
        require_writable(Path(out))
        learning: dict[str, Any] = {
            "vocab_size": vocab_size,
            "cased": cased,
            "keep_marks": keep_marks,
            "min_frequency": min_frequency,
        }
        learning |= {} if kind == "wordpiece" else {"kind": kind}  # records of before there were kinds say none
        record = {"format": 1, "sources": source_records(resolved), "options": {**learning, **asdict(options)}}
        if not overwrite and (Path(out) / "tokenizer.json").exists():
            return _opened(Path(out), record)
    passes = 0

    def documents() -> Iterator[str]:
        nonlocal report, passes
        passes, report = passes + 1, CorpusReport()
        for document in read_documents(resolved, options, report):
            if passes == 1:
                counts.add(document.text)
            yield document.text
            progress.update(report, begun=passes - 1)
        if passes == PASSES[kind]:
            progress.end()
            progress.wait("tokenizer  learning pieces of the words …")

    with ByteProgress("tokenizer", sum(source.size for source in resolved), PASSES[kind], shown=not quiet) as progress:
        progress.wait("tokenizer  opening the text …")
        if kind == "byte-bpe":
            tokenizer = Tokenizer.train_byte_bpe(documents, vocab_size, min_frequency)
        else:
            tokenizer = Tokenizer.train(documents, vocab_size, not cased, min_frequency, False if keep_marks else None)
    if not report.documents:
        raise UserError(report.no_text_message([source.name for source in resolved]))
    if out is not None:
        with replace_directory(Path(out)) as directory:
            tokenizer.save(directory)
            write_json(directory / RECORD, {**record, "tokenizer": tokenizer.fingerprint})
    fewer = (
        f"the text has no more pieces that occur at least {min_frequency} times: {tokenizer.vocab_size:,} of "
        f"{vocab_size:,} asked for"
    )
    smaller = fewer if tokenizer.vocab_size < vocab_size else None
    for line in (*report.lines(), folding_message(counts, tokenizer.normalise), smaller):
        if line:
            progress.say(line)
    return tokenizer


def _opened(directory: Path, record: dict[str, Any]) -> Tokenizer:
    """The vocabulary that is there. Raises UserError where it was made otherwise, or is of unknown origin."""
    there = read_json(directory / RECORD) if (directory / RECORD).exists() else {}
    tokenizer = Tokenizer.load(directory)
    if there.get("tokenizer") != tokenizer.fingerprint:
        raise UserError(f"{directory} holds a vocabulary, and not what it was made of; {begin_anew()}")
    changes = file_changes(there["sources"], record["sources"])
    changes += option_changes({**asdict(CorpusOptions()), **there["options"]}, record["options"])
    if changes:
        raise made_otherwise(directory, "a vocabulary", changes)
    return tokenizer
