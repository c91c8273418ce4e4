"""Preparation: documents → sentences → ids → token store, in parallel workers, in bounded memory.

The sources are cut into parts (`store_parts.py`), which this machine's processes make one after the other, and which
are joined into the store. So the bytes do not depend on who makes which part, and a killed preparation goes on with the
part that it was at.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from bothways.data.store import TokenStore
from bothways.data.store_parts import OnDocuments, StoreParts
from bothways.data.store_writer import STORE_FILES
from bothways.errors import UserError, option
from bothways.files import refuse_foreign_files, require_writable
from bothways.mirrors import output_folder
from bothways.option_checks import options_from, require_at_least, require_name, require_path, require_type
from bothways.outputs import file_changes, made_otherwise, option_changes, require_apart
from bothways.parts import PartShare
from bothways.progress import ByteProgress, CountProgress, DocumentCounts
from bothways.shared_parts import begun_behind
from bothways.text.corpus import CorpusKeywords, CorpusOptions
from bothways.text.corpus_report import CorpusReport
from bothways.text.sentences import ENGLISH, require_language
from bothways.text.sources import Source, Sources, resolve_sources, source_records
from bothways.text.tokenizer import VOCABULARY_FILES, Tokenizer


@dataclasses.dataclass(frozen=True)
class PrepareOptions:
    """How a store is made of its sources.

    corpus: how documents are read. validation: the share of documents that is held out, from 0 to below 1: evenly
    spaced documents, from the tenth on, to six decimals. workers: processes, from 1; None: one a core. language: by
    whose rules sentences are cut, of `SENTENCE_LANGUAGES`.
    Raises UserError for a share or a number out of range, and for other languages.
    """

    corpus: CorpusOptions = dataclasses.field(default_factory=CorpusOptions)
    validation: float = 0.02
    workers: int | None = None
    language: str = ENGLISH

    def __post_init__(self) -> None:
        if not 0 <= self.validation < 1:
            raise UserError(f"{option('validation', self.validation)}: expected a share of the documents, 0 to below 1")
        require_at_least(1, workers=self.workers)
        require_language(self.language)


class PrepareKeywords(CorpusKeywords, total=False):
    """The fields of `PrepareOptions` and of its `CorpusOptions`."""

    validation: float
    workers: int | None
    language: str


def prepare(
    sources: Sources | None = None,
    tokenizer: Tokenizer | str | Path | None = None,
    out: str | Path | None = None,
    options: PrepareOptions | Mapping[str, Any] | None = None,
    *,
    texts: Iterable[str] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    on_progress: Callable[[DocumentCounts, int], None] | None = None,
    **keywords: Unpack[PrepareKeywords],
) -> TokenStore:
    """Write a token store; the same input gives the same bytes whatever the number of workers.

    sources: files, folders, globs or `python-docs:`, one or several. texts: in place of them, texts in memory, each a
    document. tokenizer: what `train_tokenizer` gave, or the directory of a vocabulary or a model. out: the store's
    directory. options: as an object, or as keywords the fields of `PrepareOptions` and of `CorpusOptions`
    (`validation=0.1`, `text_column="body"`, …), which win. overwrite: begin anew where `out` holds another store.
    quiet: nothing on the screen. on_progress: called with how many documents and bytes are done, and the number of
    tokens written, in place of the line on standard error.
    A store that is complete and was made of the same files with the same tokenizer and options is opened as it is.
    Raises UserError for unreadable sources, a store that was made otherwise, an unwritable or full disk.
    """
    require_type("quiet", quiet, bool)
    require_type("overwrite", overwrite, bool)
    options = _with_keywords(options, keywords)
    require_path(out=out)
    tokenizer = _opened(tokenizer)
    resolved = resolve_sources(() if sources is None else sources, texts)
    url = begun_behind(out)
    with output_folder(out or "", STORE_FILES, only_ours=overwrite) as folder:
        begun = begin_store(StoreParts(folder, overwrite=overwrite, url=url), resolved, tokenizer, options)
        if isinstance(begun, TokenStore):
            return begun
        make_parts(begun, None, options.workers, quiet=quiet, on_documents=on_progress)
        store = join_store(begun, quiet=quiet)
    if url is not None:
        begun.parts.remove()
    return store


def begin_store(
    begun: StoreParts, sources: Sequence[Source], tokenizer: Tokenizer, options: PrepareOptions
) -> StoreParts | TokenStore:
    """The parts of a store, with those that are there already; or the store, where it is complete and the same.

    Raises UserError for a store that was made otherwise, and where its directory holds something else.
    """
    out, overwrite = begun.out, begun.overwrite
    require_writable(out)
    refuse_foreign_files(out / "tokenizer", VOCABULARY_FILES)
    if overwrite:
        refuse_foreign_files(out, STORE_FILES)
        require_apart(out, [source.path for source in sources])
    recipe: dict[str, Any] = {
        "sources": source_records(sources, begun.known_sources()),
        "tokenizer": tokenizer.fingerprint,
        "options": options.corpus.to_json(),
        "validation": options.validation,
        **({} if options.language == ENGLISH else {"language": options.language}),
    }
    if not overwrite and (out / "manifest.json").exists():
        return _finished(begun, recipe)
    begun.begin(recipe, sources, tokenizer, options.corpus, _changes)
    return begun


def make_parts(
    begun: StoreParts,
    share: PartShare | None,
    workers: int | None,
    *,
    quiet: bool = False,
    on_documents: OnDocuments | None = None,
) -> int:
    """Make the parts of a share, or of all, that are missing, on this machine; returns how many. workers, quiet: as of
    `prepare`. Raises UserError for what cannot be read."""
    numbers = begun.parts.missing(share)
    with ByteProgress("prepare", begun.size_of(numbers), shown=not quiet) as progress:
        progress.wait("prepare  opening the text …")
        try:
            begun.make(numbers, workers, on_documents or progress.update)
        except UserError:
            if share is None and not begun.parts.done():  # the mistake's cure is another recipe
                begun.parts.remove()
            raise
    return len(numbers)


def join_store(begun: StoreParts, *, quiet: bool = False) -> TokenStore:
    """The store of parts that are all there, and what was left out of the text, said. Raises UserError as
    `StoreParts.join` does."""
    with CountProgress("join", shown=not quiet) as progress:
        store = begun.join(progress)
        for line in CorpusReport.from_dict(store.manifest["corpus"]).lines():
            progress.say(line)
    return store


def _with_keywords(options: PrepareOptions | Mapping[str, Any] | None, keywords: Mapping[str, Any]) -> PrepareOptions:
    """The options with what the keywords say. Raises UserError for a name or a type that there is not."""
    if isinstance(options, Mapping):
        keywords, options = {**options, **keywords}, None
    own = {"validation", "workers", "language"}
    of_store = {name: value for name, value in keywords.items() if name in own}
    of_corpus = {name: value for name, value in keywords.items() if name not in own}
    for name in of_corpus:
        require_name("prepare", name, [*own, *(field.name for field in dataclasses.fields(CorpusOptions))])
    start = options_from(PrepareOptions, "prepare", options, of_store)
    return dataclasses.replace(start, corpus=options_from(CorpusOptions, "prepare", start.corpus, of_corpus))


def _opened(tokenizer: Tokenizer | str | Path | None) -> Tokenizer:
    if isinstance(tokenizer, Tokenizer):
        return tokenizer
    require_path(tokenizer=tokenizer)
    return Tokenizer.load(tokenizer or "")


def _finished(begun: StoreParts, recipe: dict[str, Any]) -> TokenStore:
    """The complete store. What a process that died at the very end left of its parts is removed."""
    store = TokenStore(begun.out)
    if changes := _changes(store.manifest["recipe"], recipe):
        raise made_otherwise(begun.out, "a store", changes)
    if begun.parts.exists():
        begun.parts.load()
        if not _changes(begun.recipe, recipe):
            begun.parts.remove()
    return store


def _changes(there: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """How the recipe of a store differs from the one asked for."""
    changes = file_changes(there.get("sources", []), asked["sources"])
    if there.get("tokenizer") != asked["tokenizer"]:
        changes.append("the vocabulary is another")
    defaults = dataclasses.asdict(CorpusOptions())
    changes += option_changes({**defaults, **there.get("options", {})}, {**defaults, **asked["options"]})
    before, now = ({"language": ENGLISH, **recipe} for recipe in (there, asked))
    return changes + option_changes(before, {name: now[name] for name in ("validation", "language")})
