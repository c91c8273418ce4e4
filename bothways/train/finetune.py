"""Fine-tuning: a model + a task + labelled rows → a run's directory with a model that does the task.

RUN/best/ holds the best model so far while the run goes on; at its end it becomes RUN/model.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Unpack

from bothways.checkpoint.hugging_face import Checkpoint, load_checkpoint, weights_fingerprint
from bothways.checkpoint.shipped import shipped_for
from bothways.data.encoded import Encoded
from bothways.data.row_plan import RowPlan, RowPlanOptions
from bothways.data.tables import TableOptions
from bothways.data.unknown_tokens import count_unknown_in
from bothways.errors import UserError, as_shown, option
from bothways.hardware import choose_device
from bothways.inference.engine import truncated_rows
from bothways.inference.loaded import LoadedModel, source_of
from bothways.model.heads import Model
from bothways.option_checks import (
    field_values,
    options_from,
    require_name,
    require_path,
    require_type,
    values_of,
)
from bothways.outputs import command_words, file_record, require_apart
from bothways.progress import Progress
from bothways.remote_files import local_file
from bothways.tasks import find_task
from bothways.tasks.base import Objective, Task, require_segment_types
from bothways.text.tokenizer import Tokenizer
from bothways.train.best_epoch import BestEpoch
from bothways.train.distributed import join_world
from bothways.train.evaluate import Evaluation, RowSet, Table, figures_in_short
from bothways.train.finetune_options import (
    FinetuneOptions,
    checked_finetuning,
    epochs_to_train,
    finetuning_loop_options,
    sequence_limit,
)
from bothways.train.keywords import FinetuneKeywords
from bothways.train.loop import TrainResult, say_if_not_compiled, train
from bothways.train.options import TrainOptions
from bothways.train.provenance import in_effect, of_tables, of_this_machine
from bothways.train.run import RunDirectory
from bothways.train.shared_forward import run_shared
from bothways.train.soft_scores import TaughtRows, ask_teacher
from bothways.train.start_line import finetuning_start
from bothways.train.step import Stepper
from bothways.train.whole_step import WholeStepObjective


@dataclass(frozen=True)
class FinetuneResult:
    """A finished or interrupted run.

    evaluation: of the best epoch on the evaluation rows; None without such rows or where the run was interrupted.
    truncated: rows that lost tokens. skipped: rows left out as unusable. best_epoch: whose model is kept, counted from
    1 (None without evaluation rows), of so many epochs that were measured.
    """

    training: TrainResult
    evaluation: Evaluation | None
    truncated: int
    skipped: int
    best_epoch: int | None = None
    epochs: int = 0

    def __repr__(self) -> str:
        stopped = "" if self.training.interrupted is None else f", stopped by {self.training.interrupted.name}"
        figures = f", {figures_in_short(self.metrics)}" if self.metrics else ""
        counts = f", truncated={self.truncated}, skipped={self.skipped}"
        return f"FinetuneResult(steps={self.training.steps}{stopped}{figures}{counts})"

    @property
    def metrics(self) -> dict[str, Any] | None:
        """The figures of the evaluation."""
        return self.evaluation.metrics if self.evaluation else None


def finetune(
    task: str,
    model: str | Path | LoadedModel | None = None,
    train: Table = (),
    eval: Table | float | None = None,
    out: str | Path | None = None,
    options: FinetuneOptions | Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
    quiet: bool = False,
    progress: Progress | None = None,
    **keywords: Unpack[FinetuneKeywords],
) -> FinetuneResult:
    """Fine-tune a model for a task (`tasks.TASKS`); the same call again resumes a run that was stopped. Under
    `torchrun` all processes make the call, and work on the same run.

    model: a run, a Hugging Face directory, a shipped model, a hub id, or what `bw.load` gives; by default the shipped
    encoder. train, eval: files (csv, tsv, jsonl,
    parquet, CoNLL, SQuAD json) or iterables of dictionaries; on eval every epoch is measured, and the best epoch's
    model becomes the run's; a number above 0 and below 1 is the share of the training rows that is held out for it.
    out: the run's directory, without which nothing is trained. options: `FinetuneOptions`, or a dictionary of them; as
    keywords they win, and there the task's own options stand, too (`steps=5`, `pair_column="b"`, `overlap=64`, …).
    overwrite: begin anew where `out` holds another run. quiet: nothing on the screen; what would stand there goes to
    the logger `bothways`. progress: what shows it, in place of the line on standard error.

    With other `epochs` or `steps` a run goes on too, finished or not: from there on as a run of that length does.
    Writes `out/metrics.jsonl`, `out/checkpoints/`, `out/model/` and, with evaluation rows, `out/evaluation.json` and
    `out/predictions.csv`.
    Raises UserError for options that there are not, bad rows, labels in evaluation that training never saw, and a
    sequence above the position table.
    """
    require_type("quiet", quiet, bool)
    require_type("overwrite", overwrite, bool)
    require_path(out=out)
    model = shipped_for("finetune").name if model is None else model
    if overwrite:
        require_apart(Path(out or ""), [source_of(model), train, eval, keywords.get("teacher")])
    in_dictionary = options if isinstance(options, Mapping) else {}
    of_task, of_training = _split(task, {**in_dictionary, **keywords})
    if of_training.get("teacher") is not None:
        of_training["teacher"] = str(source_of(of_training["teacher"]))
    settings = checked_finetuning(
        options_from(FinetuneOptions, "finetune", None if in_dictionary else options, of_training)
    )
    with join_world(choose_device(settings.device)) as world:
        progress = progress or Progress(f"finetune {task}", shown=world.main and not quiet)
        run = RunDirectory(out or "", world, overwrite=overwrite)
        tables = _local(train), _local(eval)
        return _finetune(make_task(task, of_task), source_of(model), tables, run, settings, progress)


def _local(table: Any) -> Any:
    """A file that can be read here, of one behind a URL; what is no path as it is."""
    return local_file(table) if isinstance(table, str | Path) else table


def _split(task: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The task's own options among those given, and the others. Raises UserError for a name that neither has."""
    own = [field.name for field in fields(find_task(task).Options)]
    for name in given:
        require_name(f"finetune {task}", name, [*own, *(field.name for field in fields(FinetuneOptions))])
    of_training = {name: value for name, value in given.items() if name not in own}
    return {name: given[name] for name in own if name in given}, of_training


def _finetune(
    task: Task,
    model: str | Path,
    tables: tuple[Table, Table | float | None],
    run: RunDirectory,
    options: FinetuneOptions,
    progress: Progress,
) -> FinetuneResult:
    world = run.world
    progress.wait(f"{progress.title}  reading rows, opening the model …")
    rows, eval_rows = read_rows_to_learn(*tables, task, options, progress.say)
    if world.size > 1:
        world.require_same(table_to_train_on=rows.fingerprint, table_to_measure_on=eval_rows.fingerprint)
    checkpoint, asked = _load(model, rows.task, options, progress.say), rows.task
    rows, eval_rows = (
        replace(table, task=table.task.with_model(checkpoint.model, checkpoint.metadata)) for table in (rows, eval_rows)
    )
    _require_readable(checkpoint, asked)
    limit = sequence_limit(options, checkpoint.config)
    encoded, eval_encoded = (table.encode(checkpoint.tokenizer, limit) for table in (rows, eval_rows))
    truncated = _say_truncated(progress.say, rows.task, (encoded, eval_encoded), limit)
    _say_unknown(progress.say, checkpoint.tokenizer, {"training rows": encoded, "evaluation rows": eval_encoded})
    taught = ask_teacher(rows, encoded, checkpoint, options, progress, run_shared(world))
    plan = _plan(rows, encoded, eval_rows, checkpoint, taught, options)
    settings = finetuning_loop_options(options, plan, checkpoint.config.hidden_size)
    objective: Objective = taught.objective
    if rows.task.keep_whole == "step" and world.size > 1:
        objective = WholeStepObjective(objective, world)
    stepper = Stepper(checkpoint.model, objective, plan, settings, world)
    say_if_not_compiled(stepper.device, progress)
    progress.steps_per_epoch = plan.steps(1)
    provenance = {
        **of_this_machine(stepper.device, world.size),
        "model": as_shown(model),
        **of_tables((tables[0], rows), (tables[1], eval_rows)),
        "options": _options_in_effect(options, rows.task, settings, plan, limit),
    }
    metadata = {"sequence_length": limit, "provenance": provenance}
    best = BestEpoch(checkpoint, eval_rows, eval_encoded, run, options.patience, metadata)
    inputs = {"model": model, "train": tables[0], "eval": tables[1]}
    checkpoint.metadata = {**rows.task.to_json(), **metadata}
    run.begin(_described(run, asked, inputs, options), checkpoint)
    progress.start_line = finetuning_start(stepper, len(rows.rows), plan.steps(1))
    training = train(stepper, run, progress, lambda step: best.evaluate(), best.is_out_of_patience)
    evaluation = best.finish() if training.interrupted is None else None
    run.publish()
    skipped = rows.skipped + eval_rows.skipped
    return FinetuneResult(training, evaluation, truncated, skipped, best.number, len(best.scores))


def _options_in_effect(
    options: FinetuneOptions, task: Task, settings: TrainOptions, plan: RowPlan, limit: int
) -> dict[str, Any]:
    """The options with what followed from the rows and the model. limit: the tokens of a sequence, at most."""
    return in_effect(
        {**task.to_json()["options"], **values_of(options, FinetuneOptions)},
        settings,
        epochs=epochs_to_train(options, plan) if options.steps is None else round(settings.steps / plan.steps(1), 2),
        sequence_length=limit,
        batch_size=None if options.tokens_per_step else options.batch_size,
    )


def _described(run: RunDirectory, task: Task, inputs: Mapping[str, Any], options: FinetuneOptions) -> dict[str, Any]:
    """What the run is started with, as run.json has it. inputs: by option a path, or rows that are no file."""
    given, own = values_of(options, FinetuneOptions), task.to_json()["options"]
    defaults = {**values_of(FinetuneOptions(), FinetuneOptions), **asdict(task.Options())}
    if all(value is None or isinstance(value, str | Path | float) for value in inputs.values()):
        files = {name: as_shown(str(value)) for name, value in inputs.items() if value is not None}
        words = ["bothways", "finetune", task.name]
        command = shlex.join(command_words(words, {**files, "out": as_shown(run.path), **given, **own}, defaults))
    else:
        command = f"bothways.finetune({task.name!r}, {as_shown(str(inputs['model']))!r}, …, {as_shown(run.path)!r}, …)"
    return {
        "command": command,
        "task": task.name,
        "inputs": {name: _input_record(name, value) for name, value in inputs.items()},
        "options": given,
        "task_options": own,
    }


def _input_record(name: str, value: Any) -> Any:
    """A file's record; the path of a model; a share of the rows; None for what was not given."""
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str | Path):
        return None if value is None else "rows in memory"
    return str(value) if name == "model" else file_record(value)


def make_task(name: str, options: Mapping[str, Any]) -> Task:
    """The task of this name with these options of its own. Raises UserError for names and types it does not have."""
    kind = find_task(name)
    return kind.make(kind.Options(**field_values(kind.Options, name, options)))


def read_rows_to_learn(
    train_table: Table,
    eval_table: Table | float | None,
    task: Task,
    options: FinetuneOptions,
    say: Callable[[str], None],
) -> tuple[RowSet, RowSet]:
    """The rows to train on, the task fitted to them, and those to measure on; eval_table as `finetune` has it.

    Says what a user should know of them. Raises UserError as `finetune` does.
    """
    reading = TableOptions(options.format, say, options.encoding)
    rows = RowSet.read(train_table, task, options.skip_bad, reading)
    if advice := rows.task.advice(rows.rows):
        say(advice)
    if isinstance(eval_table, int | float):
        rows, eval_rows = rows.held_out(eval_table, options.seed, say)
        rows = rows.fitted()
        return rows, replace(eval_rows, task=rows.task)
    rows = rows.fitted()
    return rows, _evaluation_rows(eval_table, rows.task, options, say)


def _evaluation_rows(table: Table | None, task: Task, options: FinetuneOptions, say: Callable[[str], None]) -> RowSet:
    """The evaluation rows, the task as their columns have it; no rows without a table."""
    if table is None:
        if options.patience:
            needed = f"{option('eval')}, by which epochs are compared"
            raise UserError(f"{option('patience', options.patience)}: needs {needed}")
        say(
            f"without rows to measure on, nobody knows how good the model is: {option('eval', 0.2)} holds a fifth of "
            f"them out; {option('eval')} may also be a table"
        )
        return RowSet(task)
    found = RowSet.read(table, task, options.skip_bad, TableOptions(options.format, say, options.encoding))
    # trained on pairs, measured on scores: the range of the scores is known from these rows alone
    return found if type(found.task) is type(task) else found.fitted()


def _load(model: str | Path, task: Task, options: FinetuneOptions, say: Callable[[str], None]) -> Checkpoint:
    """The model with the task's head. Raises UserError where it cannot learn the task."""
    checkpoint = load_checkpoint(
        model,
        task.head,
        labels=task.labels,
        keep_vectors=task.keeps_vectors,
        dropout=options.dropout,
        seed=options.seed,
    )
    assert checkpoint.report is not None
    say(f"{model}: {checkpoint.report.sentence()}")
    _freeze(checkpoint.model, options.freeze_layers)
    if not any(parameter.requires_grad for parameter in checkpoint.model.parameters()):
        asked = option("freeze_layers", options.freeze_layers)
        raise UserError(f"{asked}: nothing is left to train for {task.name}")
    return checkpoint


def _require_readable(checkpoint: Checkpoint, task: Task) -> None:
    """Raises UserError for a head that reads what sees nothing of a text."""
    if checkpoint.config.is_decoder and checkpoint.model.head.reads_first_tokens_only:
        raise UserError(
            f"{checkpoint.source}: reads from left to right, so its first token, which {task.name} decides by, sees "
            "nothing of the text; take a model that reads both ways"
        )


def _freeze(model: Model, number: int) -> None:
    """Exclude the embeddings and this many layers from training; -1: the whole encoder."""
    encoder = model.encoder
    if not -1 <= number <= len(encoder.layers):
        accepted = f"0 to {len(encoder.layers)}, or -1 for the whole encoder"
        raise UserError(f"{option('freeze_layers', number)}: expected {accepted}")
    if number:
        frozen = len(encoder.layers) if number == -1 else number
        for module in (encoder.embeddings, *encoder.layers[:frozen]):
            module.requires_grad_(False)


def _say_truncated(say: Callable[[str], None], task: Task, tables: Sequence[Sequence[Encoded]], limit: int) -> int:
    """How many rows lost tokens, which is also said."""
    tokens = sum(sequence.truncated for table in tables for sequence in table)
    rows = sum(truncated_rows(table) for table in tables)
    if rows:
        say(f"{rows:,} rows are longer than {limit} tokens and lose {tokens:,} tokens at their {task.cut_at}")
    return rows


def _say_unknown(say: Callable[[str], None], tokenizer: Tokenizer, tables: Mapping[str, Sequence[Encoded]]) -> None:
    """Say of which rows, by what they are, the vocabulary cannot read much."""
    for what, encoded in tables.items():
        if (sentence := count_unknown_in(tokenizer, encoded).table_sentence(what)) is not None:
            say(sentence)


def _plan(
    rows: RowSet,
    encoded: Sequence[Encoded],
    eval_rows: RowSet,
    checkpoint: Checkpoint,
    taught: TaughtRows,
    options: FinetuneOptions,
) -> RowPlan:
    """The training batches of the rows, with all that a resumed run must share."""
    if any(sequence.token_type_ids.any() for sequence in encoded):
        require_segment_types(checkpoint.config, checkpoint.source)
    task = rows.task
    with_targets = task.add_targets(encoded, rows.rows)
    return RowPlan(
        taught.add_targets(with_targets),
        taught.objective.collate,
        RowPlanOptions(options.batch_size, options.tokens_per_step, options.seed, task.keep_whole),
        identity={
            "model": weights_fingerprint(checkpoint.model),
            "dropout": options.dropout,
            "rows": _fingerprint(task, with_targets),
            "task": json.loads(json.dumps(task.identity())),  # as a checkpoint has it, tuples are lists
            "tokenizer": checkpoint.tokenizer.fingerprint,
            "freeze_layers": options.freeze_layers,
            "evaluation rows": eval_rows.fingerprint,  # the best of epochs measured on other rows would be no best
            **taught.identity,
        },
    )


def _fingerprint(task: Task, encoded: Sequence[Encoded]) -> str:
    digest = hashlib.sha256()
    for sequence in encoded:
        digest.update(sequence.input_ids.tobytes())
        digest.update(task.targets_as_json(sequence.targets).encode())
    return digest.hexdigest()[:16]
