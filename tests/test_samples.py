"""The help desk's samples: enough of each, valid, and nothing of the training part in the test part."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from bothways.data.tables import Row, read_rows
from bothways.tasks.answer import AnswerTask
from bothways.tasks.instruct import InstructTask
from bothways.tasks.similar import SimilarTask
from bothways.tasks.tag import TagTask

PARTS = ("train", "test")


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(str(resources.files("bothways") / "samples" / "helpdesk"))


def rows(folder: Path, name: str) -> dict[str, list[Row]]:
    return {part: read_rows(folder / name.format(part)) for part in PARTS}


def test_questions(folder: Path) -> None:
    parts = rows(folder, "questions-{}.json")
    every = [row for part in parts.values() for row in part]
    task = AnswerTask()
    unanswered = [row for row in every if not task.gold(row)]
    articles = {part: {row.values["title"] for row in of} for part, of in parts.items()}
    assert len(articles["train"] | articles["test"]) >= 60
    assert not articles["train"] & articles["test"]
    assert len(every) >= 300
    assert 0.2 <= len(unanswered) / len(every) <= 0.25
    for row in every:  # an answer stands once, so that there is no doubt which is meant
        for one in row.values["answers"]:
            assert row.values["context"].count(one["text"]) == 1
    assert len({row.values["question"].lower() for row in every}) == len(every)


def test_entities(folder: Path) -> None:
    parts, tickets = rows(folder, "entities-{}.jsonl"), rows(folder, "tickets-{}.jsonl")
    assert sum(map(len, parts.values())) >= 200
    for part in PARTS:
        texts = {row.values["text"] for row in tickets[part]}
        task = TagTask().fitted(parts[part])
        assert {label[2:] for label in task.labels if label != "O"} == {"device", "amount", "date", "plan"}
        for row in parts[part]:
            assert row.values["text"] in texts
            words = task.words(row)
            begins, ends = {a for a, _ in words.characters}, {b for _, b in words.characters}
            for span in row.values["spans"]:  # no entity begins or ends inside a word
                assert span["start"] in begins
                assert span["end"] in ends


def test_pairs(folder: Path) -> None:
    parts = rows(folder, "pairs-{}.jsonl")
    every = [row for part in parts.values() for row in part]
    assert len(every) >= 150
    for part in parts.values():
        scores = SimilarTask().fitted(part).score_range
        assert scores == (0.0, 5.0)
    sentences = [row.values[side] for row in every for side in ("text", "pair")]
    sentences += [row.values[side] for row in read_rows(folder / "paraphrases.jsonl") for side in ("text", "pair")]
    assert len(set(sentences)) == len(sentences)


def test_conversations_and_commands(folder: Path) -> None:
    task = InstructTask()
    for name, least in (("conversations", 70), ("commands", 200)):
        parts = rows(folder, name + "-{}.jsonl")
        every = [row for part in parts.values() for row in part]
        assert len(every) >= least
        for row in every:
            task.check(row)
        said = {part: {task.turns(row)[0][1] for row in of} for part, of in parts.items()}
        assert not said["train"] & said["test"]
    results = {part: {row.values["result"] for row in of} for part, of in rows(folder, "commands-{}.jsonl").items()}
    assert results["test"] - results["train"], "some results of the test part have to be put together anew"
