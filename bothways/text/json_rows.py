"""Rows of .json files, SQuAD's and arrays of objects, as values by column and places. A file is read as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bothways.errors import UserError
from bothways.text.lines import Fault
from bothways.text.table_reader import json_row, unique_keys

WHOLE_FILE_CHARACTERS = 1 << 40  # no limit: a SQuAD file may be a single line
ValuesAndSource = tuple[dict[str, Any] | str, str]  # of what cannot be read, the reason instead of the values


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
