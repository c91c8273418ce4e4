"""Fine-tuning, assembled: a model + a task + labelled rows → a run's directory with a model that does the task.

RUN/best/ holds the best model so far while the run goes on; at its end it becomes RUN/model.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_origin, get_type_hints

from bothways.checkpoint.hugging_face import Checkpoint, load_checkpoint, save_checkpoint, weights_fingerprint
from bothways.data.encoded import Encoded
from bothways.data.row_plan import RowPlan
from bothways.data.tables import Row, read_rows
from bothways.errors import UserError, closest
from bothways.files import replace_with, write_json
from bothways.hardware import TrainingPrecision
from bothways.model.heads import device_of
from bothways.options import matches_type, type_in_words
from bothways.progress import Progress
from bothways.tasks import find_task
from bothways.tasks.base import Task
from bothways.train.evaluate import Evaluation, columns_of, evaluate_rows, usable_rows, write_predictions
from bothways.train.loop import TrainResult, train
from bothways.train.options import TrainOptions, check_seed
from bothways.train.run import RunDirectory
from bothways.version import __version__

Table = str | Path | Iterable[Mapping[str, Any]]
Preset = Literal["quick", "standard"]


@dataclass(frozen=True)
class FinetuneOptions:
    """What `bothways finetune` can be told, whatever the task; each task has options of its own besides.

    preset: `standard` is three epochs, and on small data as many as make `MINIMUM_STEPS`, up to twenty; `quick` one
    epoch, with at most 128 tokens of a text. epochs, or steps, and sequence_length say otherwise (by default the
    position table's length).
    batch_size: examples in a step; tokens_per_step: a token budget instead. lr: by default 5e-5 for 768 hidden units
    (Devlin et al. 2018, A.3), more for smaller models. patience: epochs without a better evaluation after which the run
    ends; 0 never ends it. freeze_layers: the embeddings and this many layers from below are not trained; -1: the whole
    encoder. skip_bad: leave out rows that cannot be used, and count them, instead of stopping at the first.
    """

    preset: Preset = "standard"
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
    patience: int = 0
    freeze_layers: int = 0
    skip_bad: bool = False
    micro_batch_tokens: int | None = None
    log_every: int = 10
    seed: int = 0
    device: str = "auto"
    precision: TrainingPrecision = "auto"


MINIMUM_STEPS = 200
QUICK_LENGTH = 128


@dataclass(frozen=True)
class FinetuneResult:
    """evaluation: of the best checkpoint on the evaluation rows; None without such rows. metrics: its figures.
    truncated: rows that lost tokens. skipped: rows left out as unusable."""

    training: TrainResult
    evaluation: Evaluation | None
    truncated: int
    skipped: int

    @property
    def metrics(self) -> dict[str, Any] | None:
        return self.evaluation.metrics if self.evaluation else None


def finetune(
    task_name: str,
    model: str | Path,
    train_table: Table,
    eval_table: Table | None,
    out: str | Path,
    options: FinetuneOptions | None = None,
    *,
    progress: Progress | None = None,
    **task_options: Any,
) -> FinetuneResult:
    """Fine-tune `model` for a task (`tasks.TASKS`); the same call again resumes a run that was stopped.

    Tables are files (csv, tsv, jsonl, parquet, CoNLL, SQuAD json) or iterables of dictionaries. task_options: the
    task's own (`pair_column="b"`, `overlap=64`, …). With evaluation rows, every epoch is measured on them and the best
    one becomes the model. Writes `out/metrics.jsonl`, `out/checkpoints/`, `out/model/` and, with evaluation rows,
    `out/evaluation.json` and `out/predictions.csv`.
    Raises UserError: bad rows, labels in evaluation that training never saw, a sequence above the position table.
    """
    options = options or FinetuneOptions()
    _check(options)
    progress = progress or Progress(f"finetune {task_name}")
    task = make_task(task_name, task_options)
    train_rows = read_rows(train_table)
    task = task.for_columns(columns_of(train_rows))
    train_rows, skipped = usable_rows(task, train_rows, options.skip_bad, progress.say)
    task = task.fitted(train_rows)
    eval_task, eval_rows, bad = _evaluation(task, eval_table, options, progress)
    skipped += bad
    checkpoint = _load(model, task, options, progress)
    run, limit = RunDirectory(out), _sequence_limit(options, checkpoint)
    encoded = task.add_targets(task.encode(train_rows, checkpoint.tokenizer, limit), train_rows)
    tuning = BestEpoch(checkpoint, eval_task, eval_rows, limit, run, options)
    truncated = _say_truncated(progress, task, (encoded, tuning.encoded), limit)
    plan = _plan(task, encoded, checkpoint, options, _fingerprint_of_rows(eval_rows))
    tuning.state = {
        "sequence_length": limit,
        "provenance": {"bothways": __version__, "model": str(model), "options": asdict(options)},
    }
    settings = _loop_options(options, plan, checkpoint.config.hidden_size)
    training = train(checkpoint.model, task, plan, settings, run, progress, tuning.evaluate, done=tuning.done)
    evaluation = tuning.finish() if training.interrupted is None else None
    return FinetuneResult(training, evaluation, truncated, skipped)


def _evaluation(
    task: Task, table: Table | None, options: FinetuneOptions, progress: Progress
) -> tuple[Task, list[Row], int]:
    """The task as the evaluation table wants it, its usable rows, and how many are not."""
    if table is None:
        if options.patience:
            raise UserError(f"--patience {options.patience}: needs --eval, by which epochs are compared")
        return task, [], 0
    found = read_rows(table)
    suited = task.for_columns(columns_of(found))
    rows, bad = usable_rows(suited, found, options.skip_bad, progress.say)
    # trained on pairs, measured on scores: their range is known from these rows alone
    return suited if type(suited) is type(task) else suited.fitted(rows), rows, bad


def make_task(name: str, options: Mapping[str, Any]) -> Task:
    """The task of this name with these options of its own. Raises UserError for names it does not have."""
    kind = find_task(name)
    hints, given = get_type_hints(kind.Options), {}
    for key, value in options.items():
        if key not in hints:
            raise UserError(f"{name} has no option {key!r}{closest(key, hints)}; accepted: {', '.join(hints)}")
        several = isinstance(value, str) and get_origin(hints[key]) is tuple  # one of several may come alone
        listed = [value] if several else list(value) if isinstance(value, tuple) else value
        if not matches_type(listed, hints[key]):
            raise UserError(f"{name}: {key} is {value!r}, expected {type_in_words(hints[key])}")
        given[key] = tuple(listed) if isinstance(listed, list) else value
    return kind.make(kind.Options(**given))


class BestEpoch:
    """What a run of fine-tuning does at the end of each epoch: measure, tune thresholds, keep the best, know when to
    stop.

    Which epoch was the best is read from the run's metrics, so that a resumed run goes on as an undisturbed one would.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        task: Task,
        rows: list[Row],
        limit: int,
        run: RunDirectory,
        options: FinetuneOptions,
    ) -> None:
        self.checkpoint, self.rows, self.run, self.patience = checkpoint, rows, run, options.patience
        self.task = task
        self.encoded = self.task.encode(rows, checkpoint.tokenizer, limit) if rows else []
        self.state: dict[str, Any] = {}
        self._best = run.path / "best"
        self._evaluation: Evaluation | None = None

    def evaluate(self) -> dict[str, Any]:
        """Figures for the log; the model and its predictions are kept where they are the best so far."""
        if not self.rows:
            return {}
        evaluation = evaluate_rows(self.checkpoint.model, self.task, self.rows, self.encoded, tune=True)
        scores = self._scores()
        if not scores or evaluation.score >= max(scores):  # of equals the one that has seen more
            self.checkpoint.metadata = {**evaluation.task.to_json(), **self.state}
            save_checkpoint(self.checkpoint, self._best)
            write_json(self._best / "evaluation.json", evaluation.metrics)
            write_predictions(self._best / "predictions.csv", evaluation.table())
            self._evaluation = evaluation
        return {name: value for name, value in evaluation.metrics.items() if isinstance(value, float)}

    def done(self) -> bool:
        """Whether so many epochs passed without a better one that the run is to end."""
        scores = self._scores()
        return bool(self.patience and scores) and scores[::-1].index(max(scores)) >= self.patience

    def _scores(self) -> list[float]:
        """The deciding figure of every evaluation so far: the first that was logged of each."""
        lines = [[value for name, value in line.items() if name.startswith("eval_")] for line in self.run.metrics()]
        return [values[0] for values in lines if values]

    def finish(self) -> Evaluation | None:
        """Put the best model in its place, or the last one where nothing was measured."""
        if not self.rows:
            self.checkpoint.metadata = {**self.task.to_json(), **self.state}
            save_checkpoint(self.checkpoint, self.run.model_path)
            return None
        if self._best.exists():
            replace_with(self._best, self.run.model_path)
        for name in ("evaluation.json", "predictions.csv"):
            if (self.run.model_path / name).exists():
                (self.run.model_path / name).replace(self.run.path / name)
        if self._evaluation is None:  # it was found by an earlier call
            best = load_checkpoint(self.run.model_path)
            task = self.task.from_json(best.metadata).for_columns(columns_of(self.rows))
            best.model.to(device_of(self.checkpoint.model))
            self._evaluation = evaluate_rows(best.model, task, self.rows, self.encoded)
        return self._evaluation


def _load(model: str | Path, task: Task, options: FinetuneOptions, progress: Progress) -> Checkpoint:
    checkpoint = load_checkpoint(model, task.head, labels=task.labels, dropout=options.dropout, seed=options.seed)
    assert checkpoint.report is not None
    progress.say(f"{model}: {checkpoint.report.sentence()}")
    if checkpoint.config.is_decoder and checkpoint.model.head.reads_first_tokens_only:
        raise UserError(
            f"{model}: reads from left to right, so its first token, which {task.name} decides by, sees nothing of the "
            "text; take a model that reads both ways"
        )
    layers = checkpoint.config.num_hidden_layers
    if not -1 <= options.freeze_layers <= layers:
        raise UserError(f"--freeze-layers {options.freeze_layers}: expected 0 to {layers}, or -1 for the whole encoder")
    if options.freeze_layers:
        frozen = layers if options.freeze_layers == -1 else options.freeze_layers
        encoder = checkpoint.model.encoder
        for part in (encoder.embeddings, *encoder.layers[:frozen]):
            part.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in checkpoint.model.parameters()):
            raise UserError(f"--freeze-layers {options.freeze_layers}: nothing is left to train for {task.name}")
    return checkpoint


def _plan(
    task: Task, encoded: Sequence[Encoded], checkpoint: Checkpoint, options: FinetuneOptions, evaluation: str
) -> RowPlan:
    pairs = any(one.token_type_ids.any() for one in encoded)
    if pairs and checkpoint.config.type_vocab_size < 2:
        raise UserError(f"{checkpoint.source}: has one segment type only (type_vocab_size 1), so it cannot read pairs")
    return RowPlan(
        encoded,
        task.collate,
        keep_whole=task.keep_whole,
        batch_size=options.batch_size,
        tokens_per_step=options.tokens_per_step,
        seed=options.seed,
        description={
            "model": weights_fingerprint(checkpoint.model),
            "dropout": options.dropout,
            "rows": _fingerprint(encoded),
            "task": json.loads(json.dumps(task.to_json())),  # as a checkpoint has it, tuples are lists
            "tokenizer": checkpoint.tokenizer.fingerprint,
            "freeze_layers": options.freeze_layers,
            "evaluation rows": evaluation,
        },
    )


def _check(options: FinetuneOptions) -> None:
    for name, hint in get_type_hints(FinetuneOptions).items():
        if not matches_type(getattr(options, name), hint):
            raise UserError(f"{name} is {getattr(options, name)!r}, expected {type_in_words(hint)}")
    check_seed(options.seed)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("fine-tuning runs in one process; start it without torchrun, or with --nproc-per-node 1")
    if options.patience < 0:
        raise UserError(f"--patience {options.patience}: expected 0 or more epochs")


def _sequence_limit(options: FinetuneOptions, checkpoint: Checkpoint) -> int:
    table = checkpoint.config.max_position_embeddings
    default = min(QUICK_LENGTH, table) if options.preset == "quick" else table
    limit = default if options.sequence_length is None else options.sequence_length
    if limit > table:
        raise UserError(f"--sequence-length {limit} is above the position table (max_position_embeddings {table})")
    if limit < 8:
        raise UserError(f"--sequence-length {limit}: expected at least 8 tokens")
    return limit


def _say_truncated(progress: Progress, task: Task, tables: Sequence[Sequence[Encoded]], limit: int) -> int:
    tokens = sum(one.truncated for table in tables for one in table)
    rows = sum(len({one.row for one in table if one.truncated}) for table in tables)
    if rows:
        progress.say(f"{rows:,} rows are longer than {limit} tokens and lose {tokens:,} tokens at their {task.cut_at}")
    return rows


def _loop_options(options: FinetuneOptions, plan: RowPlan, hidden_size: int) -> TrainOptions:
    steps_per_epoch = plan.steps(1)
    epochs = options.epochs
    if epochs is None:
        epochs = 1 if options.preset == "quick" else min(20, max(3, -(-MINIMUM_STEPS // steps_per_epoch)))
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


def _fingerprint_of_rows(rows: Sequence[Row]) -> str:
    """Which rows epochs are compared by: other rows would compare what cannot be compared."""
    content = json.dumps([dict(row.values) for row in rows], default=str, sort_keys=True)
    return hashlib.sha256(content.encode(errors="replace")).hexdigest()[:16] if rows else "none"


def _fingerprint(encoded: Sequence[Encoded]) -> str:
    digest = hashlib.sha256()
    for one in encoded:
        digest.update(one.input_ids.tobytes())
        digest.update(json.dumps({name: value.tolist() for name, value in one.targets.items()}).encode())
    return digest.hexdigest()[:16]
