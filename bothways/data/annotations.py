"""File formats of annotated text, CoNLL columns and SQuAD json, as rows: values by column, and where each row is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bothways.errors import UserError

# CoNLL-U's columns (universaldependencies.org/format.html); other CoNLL files are read by their columns' numbers.
CONLLU = ("id", "words", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")

ValuesAndSource = tuple[dict[str, Any], str]


def read_conll(path: Path, lines: Iterable[str]) -> Iterator[ValuesAndSource]:
    """Yields a row a sentence: `words`, `labels`, and every column by its number, "2" …, or its CoNLL-U name.

    Tabs separate columns, or blanks where a line has no tab; empty lines separate sentences. The word is the first
    column and the label the last; in .conllu files they are FORM and UPOS, and multiword ranges (1-2) and empty nodes
    (1.1) are no words. Comments and -DOCSTART- lines are no words either.
    Raises UserError for a line with another number of columns than the first, naming both.
    """
    universal = path.suffix.lower() == ".conllu"
    sentence: list[list[str]] = []
    begin, lines = 0, list(lines)  # begin: the sentence's first line
    words = (line for line in lines if line.strip() and not line.startswith(("#", "-DOCSTART-")))
    first = next(words, "")
    tabs, width = "\t" in first, len(_columns(first))
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r\n")
        if not line.strip() or line.startswith("-DOCSTART-"):
            if sentence:
                yield _sentence(sentence, universal), f"{path}:{begin}"
            sentence = []
            continue
        columns = _columns(line)
        if line.startswith("#") and "\t" not in line and (tabs or universal or len(columns) != width):
            continue  # a comment
        if len(columns) != width or width < 2 or (universal and width != len(CONLLU)):
            expected = len(CONLLU) if universal else max(2, width)
            raise UserError(f"{path}:{number}: {len(columns)} columns, expected {expected}: a word, …, its label")
        if universal and not columns[0].isdigit():
            continue
        begin = begin if sentence else number
        sentence.append(columns)
    if sentence:
        yield _sentence(sentence, universal), f"{path}:{begin}"


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


def read_squad(path: Path, lines: Iterable[str]) -> Iterator[ValuesAndSource]:
    """Yields a row a question of a SQuAD file, v1.1 or v2.0: `id`, `title`, `question`, `context`, `answers`.

    Answers are dictionaries of `text` and `answer_start`; the list is empty where the question has no answer.

    Raises UserError for malformed JSON, another structure, and an id that stands twice, naming the places.
    """
    try:
        content = json.loads("".join(lines))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON: {error.msg} at character {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable JSON: {error}") from error
    places: dict[str, str] = {}
    for a, article in enumerate(_items(content, "data", str(path))):
        in_article = f"{path}: data[{a}]"
        for p, paragraph in enumerate(_items(article, "paragraphs", in_article)):
            in_paragraph = f"{in_article}.paragraphs[{p}]"
            for q, question in enumerate(_items(paragraph, "qas", in_paragraph)):
                place = f"{in_paragraph}.qas[{q}]"
                if not isinstance(question, dict):
                    raise UserError(f"{place}: expected an object, found {type(question).__name__}")
                name = str(question.get("id", place))
                if name in places:
                    raise UserError(f"{place}: the id {name!r} stands twice, first at {places[name]}")
                places[name] = place
                impossible = question.get("is_impossible", False)
                answers = question.get("answers")
                given = given_answers(answers) if isinstance(answers, list) else answers
                if not isinstance(impossible, bool) or (impossible and given):
                    raise UserError(f"{place}: is_impossible is {impossible!r} beside answers {str(answers)[:60]}")
                answers = [] if impossible else answers
                context = paragraph.get("context")
                title = article.get("title", "")
                asked = question.get("question")
                row = {"id": name, "title": title, "question": asked, "context": context, "answers": answers}
                yield row, f"{place} (id {name})"


def given_answers(answers: Iterable[Any]) -> list[Any]:
    """The answers, texts or dictionaries with a `text`, without those of an empty text, which say "no answer"."""
    texts = [(answer.get("text") if isinstance(answer, dict) else answer, answer) for answer in answers]
    return [answer for text, answer in texts if not isinstance(text, str) or text.strip()]


def _items(value: Any, key: str, place: str) -> list[Any]:
    if not isinstance(value, dict) or not isinstance(value.get(key), list):
        raise UserError(f"{place}: expected an object with a list {key!r}, as SQuAD files have")
    items: list[Any] = value[key]
    return items
