"""One file per task, and the registry: a new task is a new file and one line here."""

from __future__ import annotations

from bothways.errors import UserError, closest
from bothways.tasks.answer import AnswerTask
from bothways.tasks.base import Task
from bothways.tasks.choose import ChooseTask
from bothways.tasks.classify import ClassifyTask
from bothways.tasks.classify_number import RegressionTask as RegressionTask  # as `PROBLEMS` of classify.py knows it
from bothways.tasks.classify_several import MultiLabelTask as MultiLabelTask
from bothways.tasks.instruct import InstructTask
from bothways.tasks.similar import SimilarTask
from bothways.tasks.tag import TagTask

TASKS: dict[str, type[Task]] = {
    "classify": ClassifyTask,
    "answer": AnswerTask,
    "tag": TagTask,
    "choose": ChooseTask,
    "similar": SimilarTask,
    "instruct": InstructTask,
}


def find_task(name: str) -> type[Task]:
    """The task of this name. Raises UserError for any other, with the names that are accepted."""
    if not isinstance(name, str) or name not in TASKS:
        raise UserError(f"unknown task {name!r}{closest(str(name), TASKS)}; accepted: {', '.join(TASKS)}")
    return TASKS[name]
