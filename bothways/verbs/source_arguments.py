"""Where text comes from, for the verbs that read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bothways.text.corpus import CorpusOptions
from bothways.verbs.options import Positional


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
        """How the sources are read."""
        return CorpusOptions(text_column=self.text_column, documents=self.documents, skip_bad=self.skip_bad)
