"""What each verb does with the rows of a large table: how they are read, and the columns it adds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, replace
from typing import Any, cast

import numpy as np
import pyarrow as pa

from bothways.checkpoint.hugging_face import weights_fingerprint
from bothways.data.encoded import Encoded, join_segments
from bothways.data.tables import Row
from bothways.errors import UserError, closest
from bothways.inference import engine
from bothways.inference.bulk import Job
from bothways.inference.loaded import LoadedModel
from bothways.inference.vectors import sequence_vectors
from bothways.progress import OnProgress
from bothways.tasks.base import Task
from bothways.tasks.tag import TagTask

ENTITY = pa.struct([
    ("label", pa.string()), ("text", pa.string()), ("start", pa.int32()), ("end", pa.int32()),
    ("probability", pa.float32()),
])  # fmt: skip

# By the kind of prediction: columns, and what of the prediction is in them.
Column = tuple[str, pa.DataType, Callable[[Any], Any]]
COLUMNS: dict[str, tuple[Column, ...]] = {
    "single_label_classification": (
        ("predicted", pa.string(), lambda one: one.label),
        ("probability", pa.float32(), lambda one: one.scores[one.label]),
    ),
    "multi_label_classification": (
        ("predicted", pa.list_(pa.string()), lambda one: one.labels),
        ("probabilities", pa.list_(pa.float32()), lambda one: [one.scores[label] for label in one.labels]),
    ),
    "regression": (("predicted", pa.float64(), lambda one: one.value),),
    "tag": (("entities", pa.list_(ENTITY), lambda one: [asdict(entity) for entity in one.entities]),),
    "answer": (
        ("predicted", pa.string(), lambda one: one.text),
        ("start", pa.int32(), lambda one: one.start),
        ("end", pa.int32(), lambda one: one.end),
        ("probability", pa.float32(), lambda one: one.probability),
        ("no_answer_probability", pa.float32(), lambda one: one.no_answer_probability),
    ),
}  # fmt: skip


def embed_job(model: LoadedModel, columns: Collection[str], text_column: str, normalize: bool) -> Job:
    """The job that adds the column `embedding`, float32 `[H]` a row.

    columns: of the table. normalize: to vectors of length 1. Raises UserError where the table has no `text_column`.
    """
    _require(columns, [text_column])
    size = model.config.hidden_size
    schema = pa.schema([("embedding", pa.list_(pa.float32(), size))])

    def encode(rows: Sequence[Row]) -> list[Encoded]:
        return join_segments(model.tokenizer, [row.text(text_column) for row in rows], model.sequence_length)

    def embed(rows: Sequence[Row], encoded: list[Encoded], on_progress: OnProgress) -> list[pa.Array]:
        flat = np.concatenate(sequence_vectors(model, encoded, normalize, on_progress))
        return [pa.FixedSizeListArray.from_arrays(pa.array(flat), size)]

    described = {"verb": "embed", "text_column": text_column, "normalize": normalize}
    return Job({**described, **_described(model)}, encode, embed, schema)


def task_job(model: LoadedModel, verb: str, columns: Collection[str], names: dict[str, str]) -> Job:
    """The columns that `COLUMNS` has for what the model was fine-tuned for.

    columns: of the table. names: those that are not called as in fine-tuning, by the option's name. Raises UserError
    for a model of another task, and for columns that are not there.
    """
    task: Any = model.task(verb)
    for name in names:
        if not hasattr(task.options, name):
            raise UserError(f"--{name.replace('_', '-')}: {verb} has no such column")
    task = cast("Task", replace(task, options=replace(task.options, **names))).for_columns(columns)
    _require(columns, task.columns(labelled=False))
    if isinstance(task, TagTask) and task.options.words_column not in columns:
        _require(columns, [task.options.text_column])
    kind = (
        model.checkpoint.metadata.get("problem_type") or "single_label_classification" if verb == "classify" else verb
    )
    added = COLUMNS[kind]

    def answer(rows: Sequence[Row], encoded: list[Encoded], on_progress: OnProgress) -> list[pa.Array]:
        found = engine.predict(model.for_prediction, task, encoded, rows, on_progress)
        return [pa.array([value(one) for one in found], kind) for _, kind, value in added]

    schema = pa.schema([(name, kind) for name, kind, _ in added])
    described = {"verb": verb, "task": task.to_json(), **_described(model)}
    return Job(described, lambda rows: model.encode_rows(task, rows), answer, schema)


def _described(model: LoadedModel) -> dict[str, Any]:
    return {
        "model": weights_fingerprint(model.model),
        "tokenizer": model.tokenizer.fingerprint,
        "sequence_length": model.sequence_length,
        "precision": model.precision,
    }


def _require(columns: Collection[str], needed: Collection[str]) -> None:
    for name in needed:
        if name not in columns:
            raise UserError(
                f"--in: no column {name!r}{closest(name, columns)}; columns present: {', '.join(columns) or 'none'}"
            )
