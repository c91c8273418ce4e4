"""Sentences of a document, by `sentencex` (Wikimedia's splitter, in Rust; `benchmarks/sentences.py` has the choice)."""

from __future__ import annotations

import itertools
import re

from sentencex import segment

from bothways.text.corpus import Document

_SENTENCE_END = re.compile(r"""[.!?…:;]["'”’)\]]*$""")
_WRAPPED_COLUMNS = range(20, 101)  # shorter lines are lists and verse, longer ones paragraphs


def split_sentences(document: Document) -> list[str]:
    """The document's sentences, white space made single; empty ones are dropped.

    A line break ends a sentence, unless the document is hard-wrapped (lines broken at a column, as in mail and old
    text files): then only blank lines end a paragraph.
    """
    lines = document.text.splitlines()
    if document.one_sentence_a_line:
        return _normal(lines)
    if is_hard_wrapped(lines):
        groups = itertools.groupby(lines, key=lambda line: bool(line.strip()))
        lines = [" ".join(group) for has_text, group in groups if has_text]
    return _normal([sentence for paragraph in _normal(lines) for sentence in segment("en", paragraph)])


def is_hard_wrapped(lines: list[str]) -> bool:
    """True when three tenths of the text before line breaks stand in lines that were broken in mid-sentence.

    Such a line has 20 to 100 columns, does not end a sentence, and the next one goes on in lower case. In wrapped prose
    that is most lines, where a paragraph, a verse or a list item has its line hardly any. Blank lines are no breaks.
    """
    broken = together = 0  # characters
    for line, following in itertools.pairwise(map(str.strip, lines)):
        if line and following:
            together += len(line)
            goes_on = following.lstrip("(")[:1].islower()
            if goes_on and len(line) in _WRAPPED_COLUMNS and not _SENTENCE_END.search(line):
                broken += len(line)
    return broken > 0 and 10 * broken >= 3 * together


def _normal(texts: list[str]) -> list[str]:
    return [normal for text in texts if (normal := " ".join(text.split()))]
