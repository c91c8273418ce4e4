"""Fine-tuning, assembled: a model + a task + labelled rows → a run's directory with a model that does the task."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import bothways
from bothways.data.packing import PackedBatch
from bothways.data.plan import RowPlan
from bothways.data.tables import Row, read_rows
from bothways.errors import UserError, closest
from bothways.files import write_json
from bothways.inference import engine
from bothways.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, weights_fingerprint
from bothways.tasks import TASKS
from bothways.tasks.base import Encoded
from bothways.tasks.classify import ClassifyTask
from bothways.train.loop import TrainResult, train
from bothways.train.options import Precision, TrainOptions, check_seed
from bothways.train.progress import Progress
from bothways.train.run import RunDirectory

Table = str | Path | Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class FinetuneOptions:
    """What `bothways finetune` can be told.

    epochs: by default three, and on small data as many as make `MINIMUM_STEPS`, up to twenty. steps: instead of epochs.
    batch_size: rows in a step; tokens_per_step: a token budget instead. sequence_length: by default the position
    table's. lr: by default 5e-5 for 768 hidden units (Devlin et al. 2018, A.3), more for smaller models.
    """

    text_column: str = "text"
    pair_column: str | None = None
    label_column: str = "label"
    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 32
    tokens_per_step: int | None = None
    sequence_length: int | None = None
    lr: float | None = None
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0
    dropout: float = 0.1
    micro_batch_tokens: int | None = None
    log_every: int = 10
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"


MINIMUM_STEPS = 200


@dataclass(frozen=True)
class FinetuneResult:
    """metrics: on the evaluation rows, as the task computes them; None without such rows. truncated: rows cut short."""

    training: TrainResult
    metrics: dict[str, Any] | None
    truncated: int


def finetune(
    task_name: str,
    model: str | Path,
    train_table: Table,
    eval_table: Table | None,
    out: str | Path,
    options: FinetuneOptions | None = None,
    *,
    progress: Progress | None = None,
) -> FinetuneResult:
    """Fine-tune all parameters of `model` for a task; the same call again resumes a run that was stopped.

    Tables are files (csv, tsv, jsonl, parquet) or iterables of dictionaries. Writes `out/metrics.jsonl`,
    `out/checkpoints/`, `out/model/` and, with evaluation rows, `out/evaluation.json`.
    Raises UserError: bad rows, labels in evaluation that training never saw, a sequence above the position table.
    """
    options = options or FinetuneOptions()
    check_seed(options.seed)
    progress = progress or Progress(f"finetune {task_name}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("fine-tuning runs in one process; start it without torchrun, or with --nproc-per-node 1")
    if task_name not in TASKS:
        raise UserError(f"unknown task {task_name!r}{closest(task_name, TASKS)}; accepted: {', '.join(TASKS)}")
    task, train_rows, eval_rows = _read(TASKS[task_name], train_table, eval_table, options)
    checkpoint = load_checkpoint(model, task.head, labels=task.labels, dropout=options.dropout, seed=options.seed)
    assert checkpoint.report is not None
    progress.say(f"{model}: {checkpoint.report.sentence()}")
    if options.pair_column and checkpoint.config.type_vocab_size < 2:
        raise UserError(f"{model}: has one segment type only (type_vocab_size 1), so it cannot read pairs")
    run = RunDirectory(out)
    limit = _sequence_limit(options, checkpoint)
    encoded = task.encode(train_rows, checkpoint.tokenizer, limit)
    eval_encoded = task.encode(eval_rows, checkpoint.tokenizer, limit) if eval_rows else []
    truncated = _say_truncated(progress, encoded, eval_encoded, limit)
    plan = _plan(task, encoded, checkpoint, options)
    loop_options = _loop_options(options, plan, checkpoint.config.hidden_size)

    def evaluate() -> dict[str, float]:
        if not eval_rows:
            return {}
        figures = evaluate_rows(checkpoint, task, eval_rows, eval_encoded)
        return {name: value for name, value in figures.items() if isinstance(value, float)}

    training = train(checkpoint.model, task, plan, loop_options, run, progress, evaluate)
    if training.interrupted is not None:
        return FinetuneResult(training, None, truncated)
    checkpoint.state = {
        **task.state(),
        "sequence_length": limit,
        "provenance": {"bothways": bothways.__version__, "model": str(model), "options": asdict(options)},
    }
    save_checkpoint(checkpoint, run.model_path)
    if not eval_rows:
        return FinetuneResult(training, None, truncated)
    metrics = evaluate_rows(checkpoint, task, eval_rows, eval_encoded)
    write_json(run.path / "evaluation.json", metrics)
    return FinetuneResult(training, metrics, truncated)


def _read(
    kind: type[ClassifyTask], train_table: Table, eval_table: Table | None, options: FinetuneOptions
) -> tuple[ClassifyTask, list[Row], list[Row]]:
    names = ("text_column", "pair_column", "label_column")
    columns = {name: getattr(options, name) for name in names}
    needed = [name for name in columns.values() if name]
    train_rows = read_rows(train_table, needed)
    task = kind.from_rows(train_rows, **columns)
    eval_rows = read_rows(eval_table, needed) if eval_table is not None else []
    task.check_labels(eval_rows)
    return task, train_rows, eval_rows


def _plan(task: ClassifyTask, encoded: Sequence[Encoded], checkpoint: Checkpoint, options: FinetuneOptions) -> RowPlan:
    return RowPlan(
        encoded,
        task.collate,
        batch_size=options.batch_size,
        tokens_per_step=options.tokens_per_step,
        seed=options.seed,
        description={
            "model": weights_fingerprint(checkpoint.model),
            "dropout": options.dropout,
            "rows": _fingerprint(encoded),
            "task": task.state(),
            "tokenizer": checkpoint.tokenizer.fingerprint,
        },
    )


def predict_rows(checkpoint: Checkpoint, task: ClassifyTask, encoded: Sequence[Encoded]) -> list[Any]:
    """One prediction for each encoded row, in order."""
    model = checkpoint.model.eval()

    def split(scores: Tensor, rows: Sequence[Encoded], batch: PackedBatch) -> list[Any]:
        return task.decode(scores, rows)

    return engine.run(model, split, encoded, next(model.parameters()).device)


def evaluate_rows(
    checkpoint: Checkpoint, task: ClassifyTask, rows: Sequence[Row], encoded: Sequence[Encoded]
) -> dict[str, Any]:
    """The task's metrics of the model's predictions on labelled rows."""
    return task.metrics(predict_rows(checkpoint, task, encoded), rows)


def _sequence_limit(options: FinetuneOptions, checkpoint: Checkpoint) -> int:
    table = checkpoint.config.max_position_embeddings
    limit = table if options.sequence_length is None else options.sequence_length
    if limit > table:
        raise UserError(f"--sequence-length {limit} is above the position table (max_position_embeddings {table})")
    if limit < 8:
        raise UserError(f"--sequence-length {limit}: expected at least 8 tokens")
    return limit


def _say_truncated(progress: Progress, encoded: Sequence[Encoded], eval_encoded: Sequence[Encoded], limit: int) -> int:
    cut = [one.truncated for one in [*encoded, *eval_encoded] if one.truncated]
    if cut:
        progress.say(f"{len(cut):,} rows are longer than {limit} tokens and lose {sum(cut):,} tokens at their end")
    return len(cut)


def _loop_options(options: FinetuneOptions, plan: RowPlan, hidden_size: int) -> TrainOptions:
    steps_per_epoch = plan.steps(1)
    epochs = options.epochs
    if epochs is None:
        epochs = min(20, max(3, -(-MINIMUM_STEPS // steps_per_epoch)))
    if epochs < 1:
        raise UserError(f"--epochs {epochs}: expected at least 1")
    steps = plan.steps(epochs) if options.steps is None else options.steps
    return TrainOptions(
        steps=steps,
        lr=5e-5 * (768 / hidden_size) ** 1.5 if options.lr is None else options.lr,
        warmup=options.warmup,
        weight_decay=options.weight_decay,
        clip=options.clip,
        seed=options.seed,
        micro_batch_tokens=options.micro_batch_tokens,
        log_every=min(options.log_every, steps_per_epoch),
        evaluate_every=steps_per_epoch,
        checkpoint_every=max(steps_per_epoch, 100),
        device=options.device,
        precision=options.precision,
    )


def _fingerprint(encoded: Sequence[Encoded]) -> str:
    digest = hashlib.sha256()
    for one in encoded:
        digest.update(one.input_ids.tobytes())
        digest.update(json.dumps({name: value.tolist() for name, value in one.targets.items()}).encode())
    return digest.hexdigest()[:16]
