"""CoNLL columns: sentences of words with their labels, as values by column and places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from bothways.text.json_rows import ValuesAndSource

# CoNLL-U's columns (universaldependencies.org/format.html); other CoNLL files are read by their columns' numbers.
CONLLU = ("id", "words", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")


class ConllReader:
    """The sentences of a CoNLL file: `words`, `labels`, and every column by its number, "2" …, or its CoNLL-U name.

    Tabs separate columns, or blanks where a line has no tab; empty lines separate sentences. The word is the first
    column and the label the last; in CoNLL-U they are FORM and UPOS, and multiword ranges (1-2) and empty nodes (1.1)
    are no words. -DOCSTART- lines are no words either, nor are comments: lines that begin with # and have another
    number of columns than most lines of the file, or, before a sentence's first word, # alone as their word and a label
    that no other line has.

    place: what the file is called in `file:line`. remarks: what a user should know of how the file was read.
    """

    def __init__(self, place: str, lines: Iterable[str], universal: bool) -> None:
        self._place, self._universal = place, universal
        self._lines = [line.rstrip("\r\n") for line in lines]
        self._width, self._labels = self._survey()
        self.remarks: list[str] = []

    def sentences(self) -> Iterator[ValuesAndSource]:
        """Yields a sentence and where it begins; in place of one with a line of another width what is wrong with that
        line, and where it is."""
        sentence: list[list[str]] = []
        begin = comments = 0  # begin: the sentence's first line
        fault: ValuesAndSource | None = None
        for number, line in enumerate([*self._lines, ""], 1):
            if _is_between(line):
                if fault or sentence:
                    yield fault or (_sentence(sentence, self._universal), f"{self._place}:{begin}")
                sentence, fault = [], None
                continue
            columns = _columns(line)
            if line.startswith("#"):
                if self._universal or (len(columns) != self._width and ("\t" not in line or not sentence)):
                    continue
                if not sentence and columns[0].strip() == "#" and columns[-1] not in self._labels:
                    comments += 1
                    continue
            if len(columns) != self._width or self._width < 2:
                expected = max(2, self._width)
                reason = f"{len(columns)} columns, expected {expected}: a word, …, its label"
                fault = fault or (reason, f"{self._place}:{number}")
            elif not self._universal or columns[0].isdigit():
                begin = begin if sentence else number
                sentence.append(columns)
        if comments:
            self.remarks.append(f"{comments:,} lines that begin with # read as comments: no other line has their label")

    def _survey(self) -> tuple[int, set[str]]:
        """How many columns most lines have, and the labels of all that are surely no comments."""
        widths: Counter[int] = Counter()
        labels = {"O"}
        head = True  # before a sentence's first word
        for line in self._lines:
            if _is_between(line):
                head = True
            elif not (head and line.startswith("#")):
                columns = _columns(line)
                head = False
                widths[len(columns)] += not line.startswith("#")
                labels.add(columns[-1])
        return len(CONLLU) if self._universal else max(widths, key=widths.__getitem__, default=0), labels


def is_conll(lines: Iterable[str]) -> bool:
    """Whether these lines look like CoNLL's: several, as many columns in each, two or more, no label with a blank."""
    labels: list[str] = []
    for values, _ in ConllReader("", lines, False).sentences():
        if isinstance(values, str):
            return False
        labels += values["labels"]
    return len(labels) > 1 and not any(" " in label for label in labels)


def _is_between(line: str) -> bool:
    """Whether a line ends a sentence."""
    return not line.strip() or line.startswith("-DOCSTART-")


def _columns(line: str) -> list[str]:
    line = line.rstrip("\r\n")
    return line.split("\t") if "\t" in line else line.split()


def _sentence(lines: list[list[str]], universal: bool) -> dict[str, Any]:
    columns = [list(column) for column in zip(*lines, strict=True)]
    if universal:
        named = dict(zip(CONLLU, columns, strict=True))
        return {**named, "labels": named["upos"]}
    numbered = {str(number): column for number, column in enumerate(columns, 1)}
    return {"words": columns[0], "labels": columns[-1], **numbered}
