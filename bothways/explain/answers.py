"""The answer on a page: what the task decodes, as `m.answer` gives it, and where it stands in the text shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from bothways.batch import PackedBatch
from bothways.data.encoded import Encoded
from bothways.data.tables import Row
from bothways.inference import engine
from bothways.tasks.answer import QUESTION_TOKENS, Answer, AnswerTask
from bothways.text.special_tokens import Template
from bothways.text.tokenizer import Pieces

if TYPE_CHECKING:
    from bothways.inference.loaded import LoadedModel
    from bothways.inference.texts import Text


@dataclass(frozen=True)
class ShownAnswer:
    """text and probability: those of `Answer`. first, last: the tokens of the page that it begins and ends with, both
    0, `[CLS]`, where there is none. note: how the task reads the text, where the page reads it otherwise."""

    text: str
    probability: float
    first: int
    last: int
    note: str = ""


def shown_answer(model: LoadedModel, batch: PackedBatch, text: Text, pieces: Sequence[Pieces]) -> ShownAnswer | None:
    """What a model that marks spans answers to a pair of question and context, or marks in one text; None for other
    heads. A model that was fine-tuned elsewhere, or for a task of another name, is read with the task's defaults."""
    if "span" not in model.model.head.abilities:
        return None
    task = AnswerTask.from_json({**model.checkpoint.metadata, "task": AnswerTask.name})
    task = replace(task, options=replace(task.options, question_column="question", context_column="context"))
    if isinstance(text, str):
        row, windows = Row({"context": text}, "the text"), [_as_context(batch, pieces[0], model.tokenizer.template)]
        with torch.inference_mode():
            answer: Answer = task.decode(task.split(model.for_prediction(batch), windows), windows, row)
    else:
        row = Row(dict(zip(("question", "context"), text, strict=True)), "the text")
        windows = model.encode_rows(task, [row])
        (answer,) = engine.predict(model.for_prediction, task, windows, [row])
    first, last = _tokens_of(answer, pieces, model.tokenizer.template)
    at_once = len(windows) == 1 and np.array_equal(windows[0].input_ids, batch.input_ids.cpu().numpy())
    note = (
        f"the answer is the task's, which reads windows of up to {model.sequence_length} tokens (here {len(windows)}), "
        f"up to {QUESTION_TOKENS} of them the question's; all else is of the text read at once"
    )
    return ShownAnswer(answer.text, answer.probability, first, last, "" if at_once else note)


def _as_context(batch: PackedBatch, pieces: Pieces, template: Template) -> Encoded:
    """A text without a question, all of it context."""
    ids = batch.input_ids.cpu().numpy()
    around = len(template.prefix), len(template.suffix)
    return Encoded(ids, np.zeros_like(ids), np.ones_like(ids), np.pad(pieces.offsets, (around, (0, 0))))


def _tokens_of(answer: Answer, pieces: Sequence[Pieces], template: Template) -> tuple[int, int]:
    offsets = pieces[-1].offsets
    touched = np.flatnonzero((offsets[:, 1] > answer.start) & (offsets[:, 0] < answer.end))
    if not answer.text or not len(touched):
        return 0, 0
    before = sum(len(segment.input_ids) + len(template.middle) for segment in pieces[:-1])
    begin = len(template.prefix) + before
    return begin + int(touched[0]), begin + int(touched[-1])
