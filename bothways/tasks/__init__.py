"""One file per task, and the registry: a new task is a new file and one line here."""

from __future__ import annotations

from bothways.tasks.classify import ClassifyTask

TASKS = {"classify": ClassifyTask}
