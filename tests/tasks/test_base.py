"""What all tasks share: names that runs on disk depend on, and columns of large tables."""

from __future__ import annotations

import pytest

from bothways.data.tables import Row
from bothways.errors import UserError
from bothways.tasks import TASKS
from bothways.tasks.choose import ChooseTask
from bothways.tasks.classify import ClassifyTask
from tests.helpers import tiny_tokenizer

# The fingerprint of a run of fine-tuning is made of these names, in this order: another one, and it cannot be resumed.
NAMES = {
    "classify": ["labels"],
    "answer": ["start", "end"],
    "tag": ["word_rows", "words", "labels"],
    "choose": ["place", "label"],
    "similar": ["side", "score"],
    "instruct": ["reply_rows", "next_tokens"],
}


@pytest.mark.parametrize("name", TASKS)
def test_targets_of_a_sequence_keep_the_names_that_fingerprints_have(name: str) -> None:
    kind = TASKS[name]
    other = {"label": "billing"} if name == "classify" else {"score": 1.0} if name == "similar" else {}
    rows = [Row(kind.example, "a"), Row({**kind.example, **other}, "b")]
    task = kind.make(kind.Options()).fitted(rows)
    encoded = task.add_targets(task.encode(rows, tiny_tokenizer(), 64), rows)
    assert list(encoded[0].targets) == NAMES[name]


def test_columns_that_a_task_does_not_have_are_refused() -> None:
    task = ClassifyTask().with_columns({"text_column": "body"})
    assert task.columns(labelled=False) == {"body": "the text"}
    with pytest.raises(UserError, match="question_column: classify has no such column"):
        task.with_columns({"question_column": "q"})


def test_a_task_without_columns_for_large_tables_says_so() -> None:
    with pytest.raises(UserError, match="choose: has no columns for a large table; `predict` writes"):
        ChooseTask().result_columns()
