"""What a fine-tuned model says of rows and texts: a prediction for each, by the task it was trained for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from bothways.data.encoded import Encoded
from bothways.data.tables import Row, read_rows
from bothways.inference import engine
from bothways.inference.loaded import LoadedModel
from bothways.inference.texts import Text, are_rows, columns_of_text, listed_texts, rows_of
from bothways.progress import OnProgress, no_progress
from bothways.tasks.answer import Answer, AnswerTask
from bothways.tasks.base import Task
from bothways.tasks.choose import Choice
from bothways.tasks.entities import Entity


def predict_rows(
    model: LoadedModel,
    rows: str | Path | Iterable[Mapping[str, Any]] | Sequence[Row],
    task: Task | None = None,
    on_progress: OnProgress = no_progress,
) -> list[Any]:
    """A prediction for each row of a table, of the kind that the task makes, by default the model's own.

    Raises UserError for a model without a task, and for a table without the columns. Warns of rows that were cut short.
    """
    task = task or model.task()
    listed = rows if are_rows(rows) else read_rows(cast(Any, rows), task.columns(labelled=False))
    return _run_task(model, task, cast("Sequence[Row]", listed), lambda prediction, row: prediction, on_progress)


def describe_rows(
    model: LoadedModel, rows: Sequence[Row], task: Task, on_progress: OnProgress = no_progress
) -> list[dict[str, Any]]:
    """What `predict_rows` predicts as lines of a table, `Task.describe`; the scores of all labels are not kept."""
    return _run_task(
        model, task, rows, lambda prediction, row: task.describe(prediction, row, labelled=False), on_progress
    )


def _run_task(
    model: LoadedModel, task: Task, rows: Sequence[Row], keep: Callable[[Any, Row], Any], on_progress: OnProgress
) -> list[Any]:
    """What `keep` makes of each row's prediction."""

    def answer(chunk: Sequence[Row], encoded: list[Encoded], progress: OnProgress) -> list[Any]:
        found = engine.predict(model.for_prediction, task, encoded, chunk, progress)
        return [keep(prediction, row) for prediction, row in zip(found, chunk, strict=True)]

    return model.run_in_chunks(rows, lambda chunk: model.encode_rows(task, chunk), answer, on_progress)


def classify_texts(model: LoadedModel, texts: Text | Sequence[Text], on_progress: OnProgress) -> list[Any]:
    """A `Classification`, `MultiClassification` or `Regression` for each text or pair."""
    task = model.task("classify")
    listed = model.checked_texts(texts)
    results: list[Any] = [None] * len(listed)
    for pair in (None, "pair"):
        chosen = [n for n, text in enumerate(listed) if isinstance(text, tuple) == bool(pair)]
        rows = [Row(columns_of_text(listed[n]), f"text {n + 1}") for n in chosen]
        asked = task.with_options(text_column="text", pair_column=pair)
        predictions = predict_rows(model, rows, asked, on_progress) if rows else []
        for n, prediction in zip(chosen, predictions, strict=True):
            results[n] = prediction
    return results


def answer_question(model: LoadedModel, question: str, context: str, no_answer: bool | None = None) -> Answer:
    """The answer that the context has to the question. no_answer: whether there may be none; None: as in training."""
    task = cast(AnswerTask, model.task("answer")).with_options(question_column="question", context_column="context")
    if no_answer is not None:
        task = replace(task, no_answer=no_answer)
    (answer,) = predict_rows(model, rows_of([{"question": question, "context": context}]), task)
    return cast(Answer, answer)


def tag_texts(model: LoadedModel, texts: str | Sequence[str], on_progress: OnProgress) -> list[list[Entity]]:
    """The entities of each text; of a model that labels every word, all words."""
    task = model.task("tag").with_options(words_column="words", text_column="text")
    rows = rows_of([{"text": text} for text in listed_texts(texts)])
    predictions = predict_rows(model, rows, task, on_progress) if rows else []
    return [prediction.entities for prediction in predictions]


def choose_continuation(model: LoadedModel, text: str, choices: Sequence[str]) -> Choice:
    """Which of the choices goes with the text."""
    task = model.task("choose").with_options(text_column="text", choices_column="choices", choice_columns=())
    (choice,) = predict_rows(model, rows_of([{"text": text, "choices": choices}]), task)
    return cast(Choice, choice)
