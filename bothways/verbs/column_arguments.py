"""Options for the columns of a table, where they are not called as in fine-tuning: those of all tasks."""

from __future__ import annotations

import dataclasses
from typing import Any

from bothways.tasks import TASKS
from bothways.verbs.flags import COMMON, help_texts


def column_arguments() -> type[Any]:
    """A dataclass of the `…_column` options of every task, each of them None unless it is given.

    What an option means is in `parse.COMMON`, or else in the docstring of the task's `Options`.
    """
    texts: dict[str, str] = {}
    for task in TASKS.values():
        for field in dataclasses.fields(task.Options):
            if field.name.endswith("_column"):
                texts.setdefault(field.name, COMMON.get(field.name) or help_texts(task.Options)[field.name])
    lines = "\n\n".join(f"{name}: {text}." for name, text in texts.items() if name not in COMMON)
    options = [(name, "str | None", None) for name in texts]
    return dataclasses.make_dataclass(
        "ColumnArguments",
        options,
        frozen=True,
        kw_only=True,
        namespace={"__doc__": f"Columns are those of the fine-tuning unless named here.\n\n{lines}"},
    )


def named_columns(arguments: Any) -> dict[str, Any]:
    """The columns that a verb's arguments name, by option."""
    names = [field.name for field in dataclasses.fields(arguments) if field.name.endswith("_column")]
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
