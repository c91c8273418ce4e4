"""Sentences of a document, by `sentencex` (Wikimedia's splitter, in Rust; `benchmarks/sentences.py` has the choice)."""

from __future__ import annotations

import itertools
import re

from sentencex import segment

from bothways.errors import UserError, closest, option
from bothways.text.corpus import Document

ENGLISH = "en"
# The languages that sentencex 1.0 has rules for, by ISO 639-1; in others it cuts as in English.
SENTENCE_LANGUAGES = (
    "am", "ar", "bg", "bn", "ca", "da", "de", "el", "en", "es", "fi", "fr", "gu", "hi", "hy", "it", "ja", "kk", "kn",
    "ml", "mr", "my", "nl", "pa", "pl", "pt", "ru", "sk", "ta", "te", "uk",
)  # fmt: skip
_SENTENCE_END = re.compile(r"""[.!?…:;]["'”’)\]]*$""")
# Characters of a line broken at a column: editors and mail break at 65 to 100. Shorter lines are lists and verse,
# longer ones paragraphs.
_WRAPPED_CHARACTERS = range(20, 101)
# Of the text before line breaks, how much must be broken in mid-sentence. In hard-wrapped prose it is most of it; in a
# text with a line a paragraph, a verse or a list item it is a few lines that happen to go on in lower case.
_MIN_WRAPPED_TENTHS = 3


def require_language(code: str) -> None:
    """Raises UserError for a language without rules for its sentences."""
    if code not in SENTENCE_LANGUAGES:
        near = closest(code, SENTENCE_LANGUAGES)
        raise UserError(f"{option('language', code)}: expected one of {', '.join(SENTENCE_LANGUAGES)}{near}")


def split_sentences(document: Document, language: str = ENGLISH) -> list[str]:
    """The document's sentences, each with single blanks for all white space; empty ones are left out.

    language: of `SENTENCE_LANGUAGES`. English ends German sentences behind the dot of a date, "am 3. Mai"; German does
    not, nor behind a number that ends a sentence.

    A line break ends a sentence, unless the document is hard-wrapped (lines broken at a column, as in mail and old
    text files): then only blank lines end a paragraph.
    """
    lines = document.text.splitlines()
    if document.one_sentence_a_line:
        return _with_single_blanks(lines)
    if is_hard_wrapped(lines):
        groups = itertools.groupby(lines, key=lambda line: bool(line.strip()))
        lines = [" ".join(group) for has_text, group in groups if has_text]
    return _with_single_blanks(
        [sentence for paragraph in _with_single_blanks(lines) for sentence in segment(language, paragraph)]
    )


def is_hard_wrapped(lines: list[str]) -> bool:
    """Whether at least three tenths of the text is in lines that were broken in mid-sentence.

    Such a line has 20 to 100 characters and does not end a sentence, and the next line begins in lower case. Lines
    before a blank line and the last line do not count, as no break separates them from more text.
    """
    broken = total = 0  # characters
    for line, following in itertools.pairwise(map(str.strip, lines)):
        if line and following:
            total += len(line)
            continues = following.lstrip("(")[:1].islower()
            if continues and len(line) in _WRAPPED_CHARACTERS and not _SENTENCE_END.search(line):
                broken += len(line)
    return broken > 0 and 10 * broken >= _MIN_WRAPPED_TENTHS * total


def _with_single_blanks(texts: list[str]) -> list[str]:
    return [normal for text in texts if (normal := " ".join(text.split()))]
