"""Columns of a table, where they are not called as in fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from bothways.errors import UserError
from bothways.tasks.base import Task


@dataclass(frozen=True, kw_only=True)
class ColumnArguments:
    """Columns are those of the fine-tuning unless named here."""

    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    question_column: str | None = None
    context_column: str | None = None
    answers_column: str | None = None
    start_column: str | None = None
    words_column: str | None = None
    labels_column: str | None = None
    spans_column: str | None = None
    choices_column: str | None = None
    score_column: str | None = None
    messages_column: str | None = None
    prompt_column: str | None = None
    response_column: str | None = None

    def applied(self, task: Task) -> Task:
        """The task with these columns. Raises UserError for one that it does not have."""
        given = {field.name: getattr(self, field.name) for field in fields(ColumnArguments)}
        named = {name: value for name, value in given.items() if value is not None}
        options: Any = getattr(task, "options")  # noqa: B009
        for name in named:
            if not hasattr(options, name):
                raise UserError(f"--{name.replace('_', '-')}: {task.name} has no such column")
        changed: Any = task
        return replace(changed, options=replace(options, **named))
