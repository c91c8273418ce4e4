"""Files of annotated text, CoNLL columns and JSON, SQuAD's and arrays of objects, as values by column and places."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bothways.errors import UserError
from bothways.text.lines import Fault
from bothways.text.table_reader import json_row, unique_keys

# CoNLL-U's columns (universaldependencies.org/format.html); other CoNLL files are read by their columns' numbers.
CONLLU = ("id", "words", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")

ValuesAndSource = tuple[dict[str, Any] | str, str]  # of what cannot be read, the reason instead of the values


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


def read_json_rows(path: Path, lines: Iterable[str]) -> Iterator[ValuesAndSource]:
    """Yields the rows of a .json file: of SQuAD's structure a row a question, of an array of objects, alone or under
    the key "data", a row an object, of JSON lines under the wrong name a row a line.

    Raises UserError for what is no JSON, or JSON of another structure, naming the place.
    """
    text = "".join(lines)
    try:
        content = json.loads(text, object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and error.lineno > 1 and text.lstrip().startswith("{"):
            yield from _json_lines(path, text)
            return
        raise UserError(f"{path}:{error.lineno}: not valid JSON: {error.msg} at character {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable JSON: {error}") from error
    place, items = str(path), content
    if isinstance(content, dict) and not _is_squad(content):
        place, items = f"{path}: data", content.get("data")
    if not isinstance(items, list):
        yield from _read_squad(path, content)
        return
    for number, values in enumerate(items):
        if isinstance(values, dict):
            yield values, f"{place}[{number}]"
        else:
            yield f"expected an object, found {type(values).__name__}", f"{place}[{number}]"


def _is_squad(content: dict[str, Any]) -> bool:
    """Whether something under "data" has paragraphs."""
    articles = content.get("data")
    if not isinstance(articles, list) or not articles:
        return True  # for the complaint
    return any(isinstance(article, dict) and "paragraphs" in article for article in articles)


def _json_lines(path: Path, text: str) -> Iterator[ValuesAndSource]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            row = json_row(line, number)
            yield (row.message if isinstance(row, Fault) else row.values), f"{path}:{number}"


def _read_squad(path: Path, content: Any) -> Iterator[ValuesAndSource]:
    """Yields a row a question, v1.1 or v2.0: `id`, `title`, `question`, `context`, `answers`.

    Answers are dictionaries of `text` and `answer_start`; the list is empty where the question has no answer. An id
    that stands twice is a fault of the second question.
    """
    places: dict[str, str] = {}
    articles = _items(content, "data")
    if isinstance(articles, str):
        raise UserError(f"{path}: {articles}, or an array of objects")
    for a, article in enumerate(articles):
        paragraphs = _items(article, "paragraphs")
        if isinstance(paragraphs, str):
            yield paragraphs, f"{path}: data[{a}]"
            continue
        for p, paragraph in enumerate(paragraphs):
            yield from _questions(article, paragraph, f"{path}: data[{a}].paragraphs[{p}]", places)


def _questions(
    article: dict[str, Any], paragraph: Any, in_paragraph: str, places: dict[str, str]
) -> Iterator[ValuesAndSource]:
    """places: where each id stands; the paragraph's are added."""
    questions = _items(paragraph, "qas")
    if isinstance(questions, str):
        yield questions, in_paragraph
        return
    for q, question in enumerate(questions):
        place = f"{in_paragraph}.qas[{q}]"
        if not isinstance(question, dict):
            yield f"expected an object, found {type(question).__name__}", place
            continue
        name = str(question.get("id", place))
        if name in places:
            yield f"the id {name!r} stands twice, first at {places[name]}", place
            continue
        places[name] = place
        impossible = question.get("is_impossible", False)
        answers = question.get("answers")
        given = given_answers(answers) if isinstance(answers, list) else answers
        if not isinstance(impossible, bool) or (impossible and given):
            yield f"is_impossible is {impossible!r} beside answers {str(answers)[:60]}", place
            continue
        row = {
            "id": name,
            "title": article.get("title", ""),
            "question": question.get("question"),
            "context": paragraph.get("context"),
            "answers": [] if impossible else answers,
        }
        yield row, f"{place} (id {name})"


def given_answers(answers: Iterable[Any]) -> list[Any]:
    """The answers, texts or dictionaries with a `text`, without those of an empty text, which say "no answer"."""
    texts = [(answer.get("text") if isinstance(answer, dict) else answer, answer) for answer in answers]
    return [answer for text, answer in texts if not isinstance(text, str) or text.strip()]


def _items(value: Any, key: str) -> list[Any] | str:
    """The list under a key, or why there is none."""
    if isinstance(value, dict) and isinstance(value.get(key), list):
        items: list[Any] = value[key]
        return items
    return f"expected an object with a list {key!r}, as SQuAD files have"
