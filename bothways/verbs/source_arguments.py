"""Where text comes from, for the verbs that read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from bothways.text.corpus import CorpusOptions


@dataclass(frozen=True)
class SourceArguments:
    """Where text comes from.

    sources: files (.txt .md .json .jsonl .csv .tsv .parquet, also .gz and .zst), folders, globs, or `python-docs:`.
    text_column: of json, jsonl, csv and parquet. documents: a .txt is one document, or several parted by blank lines
    with one sentence a line. skip_bad: count what cannot be read and go on, instead of stopping.
    encoding: of files that are not UTF-8, cp1252 say.
    """

    sources: Positional[tuple[str, ...]]
    text_column: str = "text"
    documents: Literal["file", "blank-line"] = "file"
    skip_bad: bool = False
    encoding: str = "utf-8"

    def corpus_options(self) -> CorpusOptions:
        """How the sources are read."""
        return CorpusOptions(
            text_column=self.text_column,
            documents=self.documents,
            skip_bad=self.skip_bad,
            encoding=self.encoding,
        )
