"""The teacher of a fine-tuning: a model that was fine-tuned for the same task, asked once about every training row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bothways.checkpoint.hugging_face import Checkpoint, load_checkpoint, weights_fingerprint
from bothways.data.encoded import Encoded
from bothways.errors import UserError, option
from bothways.inference import engine
from bothways.inference.loaded import LoadedModel
from bothways.progress import Progress
from bothways.tasks import TASKS
from bothways.tasks.base import Task, shortened_list
from bothways.tasks.distillation import require_temperature
from bothways.tasks.soft_scores import SoftScoresObjective, with_soft_scores
from bothways.train.evaluate import RowSet, columns_of
from bothways.train.finetune_options import FinetuneOptions


@dataclass(frozen=True)
class TaughtRows:
    """What is learnt from labelled rows: a task, or a task beside a teacher's soft scores.

    soft: those scores, an array for each sequence; None without a teacher. identity: what a resumed run must share of
    the teacher, by name.
    """

    objective: Task | SoftScoresObjective
    soft: Sequence[np.ndarray] | None = None
    identity: dict[str, Any] = field(default_factory=dict)

    def add_targets(self, encoded: Sequence[Encoded]) -> Sequence[Encoded]:
        """The sequences, with soft scores where there are any."""
        return encoded if self.soft is None else with_soft_scores(encoded, self.soft)


def ask_teacher(
    rows: RowSet,
    encoded: Sequence[Encoded],
    student: Checkpoint,
    options: FinetuneOptions,
    progress: Progress,
    run: engine.RunForward = engine.run_here,
) -> TaughtRows:
    """The task of the rows beside the scores of `options.teacher`; the task alone where there is no teacher.

    encoded: the rows as the student reads them. run: what runs the teacher. Raises UserError for a teacher of another
    task or of other labels, and for one of another vocabulary where scores are of tokens.
    """
    task = rows.task
    if options.teacher is None:
        for name in ("teacher_weight", "teacher_temperature"):
            if (value := getattr(options, name)) != getattr(FinetuneOptions, name):
                raise UserError(f"{option(name, value)}: of a teacher, and there is none; {option('teacher')} names it")
        return TaughtRows(task)
    _require_options(task, options)
    teacher = LoadedModel(load_checkpoint(options.teacher), options.device, options.precision)
    asked = _asked(teacher, rows)
    if task.soft_scores == "tokens":
        _require_same_tokens(teacher, student, encoded)
        read = encoded
    else:
        read = teacher.encode_rows(asked, rows.rows)
    number = len(read)

    def show(done: int) -> None:
        progress.wait(f"{progress.title}  asking the teacher, {done:,} of {number:,} …")

    show(0)
    scores = engine.score(teacher.for_prediction, asked, read, show, run)
    columns = [asked.label_numbers[label] for label in task.labels] if len(task.labels) > 1 else slice(None)
    soft = [
        of_sequence[..., columns] if task.labels else of_sequence
        for row in scores
        for of_sequence in task.soft_targets(row)
    ]
    progress.say(f"teacher {options.teacher}: asked about {len(rows.rows):,} rows")
    objective = SoftScoresObjective(task, options.teacher_weight, options.teacher_temperature)
    learnt = {"weight": options.teacher_weight, "temperature": options.teacher_temperature}
    return TaughtRows(objective, soft, {"teacher": weights_fingerprint(teacher.model), "teaching": learnt})


def _require_options(task: Task, options: FinetuneOptions) -> None:
    if task.soft_scores is None:
        able = ", ".join(name for name, kind in TASKS.items() if kind.soft_scores is not None)
        raise UserError(f"{option('teacher', options.teacher)}: {task.name} learns of none; tasks that do: {able}")
    if not 0 < options.teacher_weight < float("inf"):
        raise UserError(f"{option('teacher_weight', options.teacher_weight)}: expected a number above 0")
    require_temperature(options.teacher_temperature)


def _asked(teacher: LoadedModel, rows: RowSet) -> Task:
    """The teacher's task on these rows, by the columns that they have.

    Raises UserError where it is another one than the student's, or has other labels.
    """
    task, source = rows.task, teacher.checkpoint.source
    own = teacher.task(task.name).for_columns(columns_of(rows.rows))
    if type(own) is not type(task):
        kinds = " and ".join(type(of).__name__.removesuffix("Task") for of in (own, task))
        raise UserError(f"{option('teacher', source)}: was made for another kind of {task.name} ({kinds})")
    lacking, more = set(task.labels) - set(own.labels), set(own.labels) - set(task.labels)
    if (lacking or more) and len(task.labels) > 1:  # the name of a single number is of no account
        parts = {"does not know": sorted(lacking), "has besides": sorted(more)}
        told = "; ".join(f"{what} {shortened_list(labels)}" for what, labels in parts.items() if labels)
        raise UserError(f"{option('teacher', source)}: has other labels than the rows: it {told}")
    theirs: Any = own
    ours: Any = task
    asked: Task = replace(theirs, options=ours.options)
    return asked


def _require_same_tokens(teacher: LoadedModel, student: Checkpoint, encoded: Sequence[Encoded]) -> None:
    """Raises UserError where the teacher cannot read the student's very tokens."""
    named, task = option("teacher", teacher.checkpoint.source), "its scores are of tokens"
    if teacher.tokenizer.fingerprint != student.tokenizer.fingerprint:
        raise UserError(f"{named}: has another vocabulary than {student.source}, and {task}; take one of the same")
    longest, room = max(len(sequence.input_ids) for sequence in encoded), teacher.config.max_sequence_length
    if longest > room:
        shorter = option("sequence_length", room)
        raise UserError(f"{named}: reads {room} tokens, the rows have {longest}, and {task}; give {shorter}")
