"""What a fine-tuned model says of rows and texts: a prediction for each, by the task it was trained for.

All are questions (`engine.Question`), which `engine.complete` answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from bothways.data.encoded import Encoded
from bothways.data.frames import listed_values
from bothways.data.tables import Row, read_rows
from bothways.errors import UserError
from bothways.inference import engine
from bothways.inference.engine import Question
from bothways.inference.loaded import LoadedModel
from bothways.inference.texts import Texts, are_rows, columns_of_text, rows_of, together
from bothways.progress import OnProgress, no_progress
from bothways.tasks.answer import AnswerTask
from bothways.tasks.base import Task


def predict_rows(
    model: LoadedModel,
    rows: str | Path | Iterable[Any],
    task: Task | None = None,
    on_progress: OnProgress = no_progress,
) -> Question[list[Any]]:
    """A prediction for each row of a table, of the kind that the task makes, by default the model's own.

    Raises UserError for a model without a task, and for a table without the columns. Warns of rows that were cut short.
    """
    task = task or model.task()
    listed = rows if are_rows(rows) else read_rows(cast(Any, rows), task.columns(labelled=False))
    rows = cast("Sequence[Row]", listed)
    return (yield from _run_task(model, task, rows, lambda prediction, row: prediction, on_progress))


def describe_rows(
    model: LoadedModel, rows: Sequence[Row], task: Task, on_progress: OnProgress = no_progress
) -> Question[list[dict[str, Any]]]:
    """What `predict_rows` predicts as lines of a table, `Task.describe`; the scores of all labels are not kept."""
    return (
        yield from _run_task(
            model, task, rows, lambda prediction, row: task.describe(prediction, row, labelled=False), on_progress
        )
    )


def _run_task(
    model: LoadedModel, task: Task, rows: Sequence[Row], keep: Callable[[Any, Row], Any], on_progress: OnProgress
) -> Question[list[Any]]:
    """What `keep` makes of each row's prediction."""

    def answer(chunk: Sequence[Row], encoded: list[Encoded], progress: OnProgress) -> Question[list[Any]]:
        found = yield from engine.ask_predictions(model.for_prediction, task, encoded, chunk, progress)
        return [keep(prediction, row) for prediction, row in zip(found, chunk, strict=True)]

    return (yield from model.run_in_chunks(rows, lambda chunk: model.encode_rows(task, chunk), answer, on_progress))


def classify_texts(model: LoadedModel, texts: Texts, on_progress: OnProgress = no_progress) -> Question[Any]:
    """A `Classification`, `MultiClassification` or `Regression` for each text or pair."""
    task = model.task("classify")
    asked = model.asked(texts, "classify")
    if model.reads_pairs and (single := next((n for n, t in enumerate(asked.texts, 1) if isinstance(t, str)), None)):
        raise UserError(
            f"{model.checkpoint.source} was fine-tuned on pairs and never saw a single text, which text {single} is; "
            "give pairs: (a, b) in Python, a tab between the two in a line"
        )
    results: list[Any] = [None] * len(asked.texts)
    for pair in (None, "pair"):
        chosen = [n for n, text in enumerate(asked.texts) if isinstance(text, tuple) == bool(pair)]
        rows = [Row(columns_of_text(asked.texts[n]), f"text {n + 1}") for n in chosen]
        of_kind = task.with_options(text_column="text", pair_column=pair)
        predictions = (yield from predict_rows(model, rows, of_kind, on_progress)) if rows else []
        for n, prediction in zip(chosen, predictions, strict=True):
            results[n] = prediction
    return asked.given(results)


def find_answers(
    model: LoadedModel,
    questions: Texts,
    contexts: Texts,
    no_answer: bool | None = None,
    on_progress: OnProgress = no_progress,
) -> Question[Any]:
    """The answer that a context has to its question, or of many to theirs; one question goes with many contexts, and
    one context with many questions. no_answer: whether there may be none; None: as in training."""
    task = cast(AnswerTask, model.task("answer")).with_options(question_column="question", context_column="context")
    if no_answer is not None:
        task = replace(task, no_answer=no_answer)
    asked, among = (model.asked(values, "answer", pairs=False) for values in (questions, contexts))
    both, alone = together(asked, among, ("question", "context"))
    rows = rows_of([{"question": question, "context": context} for question, context in both])
    answers = (yield from predict_rows(model, rows, task, on_progress)) if rows else []
    return answers[0] if alone else answers


def tag_texts(model: LoadedModel, texts: Texts, on_progress: OnProgress = no_progress) -> Question[Any]:
    """The entities of each text; of a model that labels every word, all words."""
    task = model.task("tag").with_options(words_column="words", text_column="text")
    asked = model.asked(texts, "tag", pairs=False)
    rows = rows_of([{"text": text} for text in asked.texts])
    predictions = (yield from predict_rows(model, rows, task, on_progress)) if rows else []
    return asked.given([prediction.entities for prediction in predictions])


def choose_continuations(
    model: LoadedModel, texts: Texts, choices: Sequence[Any], on_progress: OnProgress = no_progress
) -> Question[Any]:
    """Which of its choices goes with each text. choices: for all texts, or a list for each."""
    task = model.task("choose").with_options(text_column="text", choices_column="choices", choice_columns=())
    asked = model.asked(texts, "choose", pairs=False)
    offered = listed_values(choices) if not isinstance(choices, str | Mapping) else None
    if offered is None:
        raise UserError(f"choose: expected a list of choices, found {choices!r}")
    each = offered if any(isinstance(choice, list | tuple) for choice in offered) else [offered] * len(asked.texts)
    if len(each) != len(asked.texts):
        raise UserError(f"{len(asked.texts):,} texts, but {len(each):,} lists of choices; give as many, or one for all")
    rows = rows_of([{"text": text, "choices": own} for text, own in zip(asked.texts, each, strict=True)])
    return asked.given((yield from predict_rows(model, rows, task, on_progress)) if rows else [])
