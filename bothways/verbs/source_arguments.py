"""Where text comes from, for the verbs that read it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from bothways.outputs import command_words
from bothways.text.corpus import CorpusOptions
from bothways.verbs.options import Positional


@dataclass(frozen=True)
class SourceArguments:
    """Where text comes from.

    sources: files (.txt .md .json .jsonl .csv .tsv .parquet, also .gz and .zst), folders, globs, also behind URLs
    (`s3://…`), or `python-docs:`.
    text_column: of json, jsonl, csv and parquet. documents: a .txt is one document, or several parted by blank lines
    with one sentence a line. skip_bad: count what cannot be read and go on, instead of stopping.
    encoding: of files that are not UTF-8, cp1252 say.
    """

    sources: Positional[tuple[str, ...]]
    text_column: str = "text"
    documents: Literal["file", "blank-line"] = "file"
    skip_bad: bool = False
    encoding: str = "utf-8"

    def words(self) -> list[str]:
        """The sources and the options of reading as words of a command."""
        reading = {field.name: field for field in fields(SourceArguments) if field.name != "sources"}
        given = {name: getattr(self, name) for name in reading}
        return command_words(self.sources, given, {name: field.default for name, field in reading.items()})

    def corpus_options(self) -> CorpusOptions:
        """How the sources are read."""
        return CorpusOptions(
            text_column=self.text_column,
            documents=self.documents,
            skip_bad=self.skip_bad,
            encoding=self.encoding,
        )
