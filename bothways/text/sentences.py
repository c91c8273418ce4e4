"""Sentences of a document, by `sentencex` (Wikimedia's splitter, in Rust; `benchmarks/sentences.py` has the choice)."""

from __future__ import annotations

import re

from sentencex import segment

from bothways.text.corpus import Document

_BLANK_LINES = re.compile(r"\n\s*\n")
_WRAPPED = re.compile(
    r"[^\s.!?:;\"”')\]]\s*\n\s*[a-z(]"
)  # a line that ends in mid-sentence, the next goes on in lower case
_LINE_BREAK = re.compile(r"\S[^\S\n]*\n[^\S\n]*\S")


def split_sentences(document: Document) -> list[str]:
    """The document's sentences, white space made single; empty ones are dropped.

    A line break ends a sentence, unless the document is hard-wrapped (lines broken at a column, as in mail and old
    text files): when three in ten of its line breaks stand in mid-sentence, only blank lines end a paragraph.
    """
    if document.one_sentence_a_line:
        return [" ".join(line.split()) for line in document.text.splitlines() if line.strip()]
    breaks = len(_LINE_BREAK.findall(document.text))
    wrapped = breaks and len(_WRAPPED.findall(document.text)) >= 0.3 * breaks
    paragraphs = _BLANK_LINES.split(document.text) if wrapped else document.text.splitlines()
    sentences = []
    for paragraph in paragraphs:
        joined = " ".join(paragraph.split())
        if joined:
            sentences += [sentence.strip() for sentence in segment("en", joined)]
    return [sentence for sentence in sentences if sentence]
