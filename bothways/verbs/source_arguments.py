"""Where text comes from, for the verbs that read it."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from bothways.progress import duration
from bothways.text.corpus import CorpusOptions, CorpusReport


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
