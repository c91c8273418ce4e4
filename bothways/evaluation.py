"""A model measured: on labelled rows by its task, or on text by what it was pretrained for."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Unpack

from bothways.data.encoded import Encoded
from bothways.data.prepare import prepare
from bothways.data.store import SplitName, TokenStore
from bothways.data.tables import Row, TableFormat, TableOptions
from bothways.data.unknown_tokens import UnknownTokens, count_unknown_in, unknown_in_store
from bothways.errors import UserError, option
from bothways.files import require_file_writable
from bothways.inference import engine
from bothways.inference.loaded import LoadedModel, source_of
from bothways.mirrors import output_file
from bothways.option_checks import require_name, require_path, require_type
from bothways.outputs import require_new_file
from bothways.predictor import load
from bothways.progress import CountProgress
from bothways.remote_files import has_file, url_of
from bothways.tasks import TASKS
from bothways.text.encodings import UTF8
from bothways.train.distributed import World, join_world
from bothways.train.evaluate import Evaluation, RowSet, Table, write_predictions
from bothways.train.held_out import evaluate_store
from bothways.train.keywords import ColumnKeywords
from bothways.train.shared_forward import run_shared

# The options of all tasks that name a column.
COLUMN_OPTIONS = [
    field.name for task in TASKS.values() for field in fields(task.Options) if field.name.endswith("_column")
]


def evaluate(
    model: str | Path | LoadedModel,
    table: Table | TokenStore,
    *,
    predictions: str | Path | None = None,
    overwrite: bool = False,
    skip_bad: bool = False,
    format: TableFormat | None = None,
    encoding: str = UTF8,
    device: str = "auto",
    quiet: bool = False,
    **columns: Unpack[ColumnKeywords],
) -> dict[str, Any]:
    """The figures of a model by name, the task's own first.

    model: a run, a Hugging Face directory, a hub id, or what `bw.load` gives. table: labelled rows, as for `finetune`;
    or, for a model that was only pretrained, a token store, of which the held-out part is read, or text: files,
    folders, globs, or a list of texts. predictions: a .csv to write what was predicted of each row. overwrite: replace
    such a file. skip_bad: leave out rows that cannot be used. format: what the table is, where its name does not say
    it. encoding: of a table or text that is not UTF-8. device: of a model that is opened here. quiet: nothing on the
    screen; what would stand there goes to the logger `bothways`. columns: those of the table that are not called as in
    fine-tuning (`text_column="body"`). Under `torchrun` all processes make the call, share the work, and get the same
    figures.

    Raises UserError for bad rows without `skip_bad`, for a column that is not there, and for a store of another
    vocabulary or without held-out text.
    """
    require_type("skip_bad", skip_bad, bool)
    require_type("overwrite", overwrite, bool)
    require_type("quiet", quiet, bool)
    for name in columns:
        require_name("evaluate", name, COLUMN_OPTIONS)
    if predictions is not None:
        require_path(predictions=predictions)
    if predictions is not None and url_of(predictions) is not None:
        with output_file(predictions, overwrite=overwrite) as place:
            return evaluate(
                model,
                table,
                predictions=place,
                skip_bad=skip_bad,
                format=format,
                encoding=encoding,
                device=device,
                quiet=quiet,
                **columns,
            )
    if predictions is not None:
        require_file_writable(Path(predictions), (".csv",), "predictions")
        if not overwrite:
            require_new_file(Path(predictions), "predictions")
    reading = TableOptions(format, encoding=encoding)
    loaded = model if isinstance(model, LoadedModel) else load(source_of(model), device)
    with (
        join_world(loaded.device) as world,
        CountProgress("evaluate", shown=world.main and not quiet) as progress,
    ):
        if "language-model" not in loaded.model.head.abilities or "task" in loaded.checkpoint.metadata:
            task = loaded.task(columns=_named(columns))
            rows = RowSet.read(_labelled(table), task, skip_bad, replace(reading, say=progress.say))
            if world.size > 1:
                world.require_same(table=rows.fingerprint)
            return _of_rows(loaded, rows, predictions, progress, world)
        for name, value in {"predictions": predictions, "format": format, **columns}.items():
            if value is not None:
                raise UserError(f"{option(name)}: for labelled rows; {loaded.checkpoint.source} was only pretrained")
        of_text = {"skip_bad": skip_bad, "encoding": encoding, "quiet": quiet or not world.main}
        return _of_text(loaded, table, of_text, world)


def _named(columns: ColumnKeywords) -> dict[str, str]:
    given: dict[str, Any] = {name: column for name, column in columns.items() if column is not None}
    for name, column in given.items():
        require_type(name, column, str)
    return given


def _labelled(table: Table | TokenStore) -> Table:
    if isinstance(table, TokenStore):
        raise UserError(f"{table.directory} is a token store; a fine-tuned model is measured on labelled rows")
    return table


def _of_rows(
    model: LoadedModel, rows: RowSet, predictions: str | Path | None, progress: CountProgress, world: World
) -> dict[str, Any]:
    """Some rows at a time, of which what the figures read is kept: neither all tokens nor all scores are in memory."""
    task, predicted = rows.task, list[Any]()
    truncated, unknown = 0, UnknownTokens()
    progress.total = len(rows.rows)

    def encode(part: Sequence[Row]) -> list[Encoded]:
        return task.encode(part, model.tokenizer, model.sequence_length)

    for part, encoded in engine.encode_in_chunks(rows.rows, encode):
        for _, found in engine.predict_in_chunks(model.model, task, encoded, part, run=run_shared(world)):
            predicted += map(task.condensed, found)
            progress(len(predicted))
        truncated += engine.truncated_rows(encoded)
        unknown += count_unknown_in(model.tokenizer, encoded)
    evaluation = Evaluation(task, rows.rows, predicted, task.metrics(predicted, rows.rows))
    if truncated:
        progress.say(f"{truncated:,} rows are longer than {model.sequence_length} tokens and were cut short")
    if (sentence := unknown.table_sentence("rows")) is not None:
        progress.say(sentence)
    if predictions is not None and world.main:
        write_predictions(Path(predictions), evaluation.table())
        progress.say(f"{predictions}: {len(rows.rows):,} predictions")
    return evaluation.metrics


def _of_text(model: LoadedModel, text: Table | TokenStore, reading: dict[str, Any], world: World) -> dict[str, Any]:
    """The figures of a pretrained model's own objective: on a store's held-out part, or on all of a text.

    reading: keywords of `prepare` for a text.
    """
    if isinstance(text, str | Path) and has_file(text, "manifest.json"):
        text = TokenStore(text)
    if isinstance(text, TokenStore):
        return _of_store(model, text, "validation", world, None if reading["quiet"] else str(text.directory))
    read: dict[str, Any] = {"sources": text} if isinstance(text, str | Path) else {"texts": text}
    with tempfile.TemporaryDirectory() as folder:
        store = prepare(**read, **reading, tokenizer=model.tokenizer, out=Path(folder) / "store", validation=0)
        name = str(read.get("sources", "the text"))
        return _of_store(model, store, "train", world, None if reading["quiet"] else name)


def _of_store(
    model: LoadedModel, store: TokenStore, split: SplitName, world: World, name: str | None
) -> dict[str, Any]:
    """name: of the text on the screen; None where nothing is shown."""
    if (unknown := unknown_in_store(store, name or str(store.directory))) is not None:
        CountProgress("evaluate", shown=name is not None).say(unknown)
    return evaluate_store(model.checkpoint, store, split, str(model.device), world=world)
