"""What each verb does with the rows of a large table: how they are read, and the columns it adds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from bothways.checkpoint.hugging_face import weights_fingerprint
from bothways.checkpoint.sentence_modules import vector_module_configs
from bothways.data.encoded import Encoded
from bothways.data.prompts import Prompt
from bothways.data.tables import Row
from bothways.errors import UserError, closest, option
from bothways.inference import engine
from bothways.inference.bulk import Job
from bothways.inference.loaded import LoadedModel
from bothways.inference.vectors import chosen_prompt, head_for_vectors, sequence_vectors
from bothways.progress import OnProgress


def embed_job(
    model: LoadedModel, columns: Collection[str], text_column: str, normalize: bool, prompt: Prompt | None = None
) -> Job:
    """The job that adds the column `embedding`, float32 `[E]` a row.

    columns: of the table. normalize: to vectors of length 1. prompt: what stands before each text, by default the
    model's own. Raises UserError where the table has no `text_column`.
    """
    _require(columns, [text_column])
    head, before = head_for_vectors(model), chosen_prompt(model) if prompt is None else prompt
    size = head.size(model.config.hidden_size)
    schema = pa.schema([("embedding", pa.list_(pa.float32(), size))])

    def encode(rows: Sequence[Row]) -> list[Encoded]:
        return before.encode(model.tokenizer, [row.text(text_column) for row in rows], model.sequence_length)

    def embed(rows: Sequence[Row], encoded: list[Encoded], on_progress: OnProgress) -> list[pa.Array]:
        flat = np.concatenate(sequence_vectors(model, encoded, normalize, on_progress))
        return [pa.FixedSizeListArray.from_arrays(pa.array(flat), size)]

    described = {"verb": "embed", "text_column": text_column, "normalize": normalize}
    if before.text:
        described["prompt"] = before.text
    if head.pooling not in ("mean", "cls") or not head.pool.include_prompt or len(head.projections):
        described["modules"] = vector_module_configs(head, model.config.hidden_size)
    return Job({**described, **_described(model)}, encode, embed, schema, model.tokenizer)


def task_job(model: LoadedModel, verb: str, columns: Collection[str], names: dict[str, str]) -> Job:
    """The columns that `Task.result_columns` has for what the model was fine-tuned for.

    columns: of the table. names: the columns that are called otherwise than in fine-tuning, by option. Raises UserError
    for a model of another task, and for columns that are not there.
    """
    task = model.task(verb, names).for_columns(columns)
    _require(columns, task.columns_to_predict(columns))
    added = task.result_columns()

    def answer(rows: Sequence[Row], encoded: list[Encoded], on_progress: OnProgress) -> list[pa.Array]:
        values: list[list[Any]] = [[] for _ in added]
        for _, predictions in engine.predict_in_chunks(model.for_prediction, task, encoded, rows, on_progress):
            for of_column, column in zip(values, added, strict=True):
                of_column += map(column.value, predictions)
        return [pa.array(of_column, column.type) for of_column, column in zip(values, added, strict=True)]

    schema = pa.schema([(column.name, column.type) for column in added])
    described = {"verb": verb, "task": task.to_json(), **_described(model)}
    return Job(described, lambda rows: model.encode_rows(task, rows), answer, schema, model.tokenizer)


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
                f"{option('in')}: no column {name!r}{closest(name, columns)}; "
                f"columns present: {', '.join(columns) or 'none'}"
            )
