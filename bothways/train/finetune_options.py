"""The options of fine-tuning, and what follows from them: epochs, the learning rate, the loop's options."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bothways.data.row_plan import RowPlan
from bothways.data.tables import TableFormat
from bothways.errors import UserError, option
from bothways.model.config import EncoderConfig
from bothways.option_checks import require_at_least, require_seed
from bothways.precision import TrainingPrecision
from bothways.text.encodings import UTF8
from bothways.train.options import TrainOptions, derive_train_options

Preset = Literal["quick", "standard"]

# The preset `standard`: as many epochs as make MINIMUM_STEPS, but at least three (Devlin et al. 2018, A.3, try two to
# four) and at most twenty, as few rows need more than three epochs. 200 and 20 were chosen by hand, not measured.
MINIMUM_STEPS, STANDARD_EPOCHS = 200, (3, 20)
QUICK_LENGTH = 128  # tokens of a text with the preset `quick`: a sentence or two, for a first look; chosen by hand
SHORTEST_LENGTH = 8  # tokens, below which a pair with its special tokens has no room for text

# The learning rate for 768 hidden units (Devlin et al. 2018, A.3), and its growth for narrower models, by an
# exponent that was chosen by hand, not measured: 1.4e-4 for 384 hidden units, 7.3e-4 for 128.
LR_OF_BASE, BASE_WIDTH, LR_EXPONENT = 5e-5, 768, 1.5

# Steps between two checkpoints, at least: epochs of a small table are shorter than what writing a checkpoint is worth.
MIN_CHECKPOINT_STEPS = 100


@dataclass(frozen=True)
class FinetuneOptions:
    """What `bothways finetune` can be told, whatever the task; each task has options of its own besides.

    preset: `standard` is three epochs, and on small data as many as make 200 steps, up to twenty; `quick` one epoch,
    with at most 128 tokens of a text. epochs: passes over the training rows; by default the preset's. steps: optimizer
    steps, in place of epochs. sequence_length: tokens of a text, at most; by default as many as the model can read.
    batch_size: examples in a step; tokens_per_step: a token budget instead. lr: by default 5e-5 for 768 hidden units
    (Devlin et al. 2018, A.3), more for smaller models. patience: epochs without a better evaluation after which the run
    ends; 0 never ends it. teacher: a model that was fine-tuned for the same task, whose scores of the training rows are
    learnt beside the gold labels. teacher_weight: of that loss, beside the task's own. teacher_temperature: by which
    both models' scores are divided before they are compared. freeze_layers: the embeddings and this many layers from
    below are not trained; -1: the whole encoder. format: what the tables are, where their names do not say it.
    encoding: of tables that are not UTF-8. skip_bad: leave out rows that cannot be used, and count them, instead of
    stopping at the first.
    """

    preset: Preset = "standard"
    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 32
    tokens_per_step: int | None = None
    sequence_length: int | None = None
    lr: float | None = None
    warmup: float = TrainOptions.warmup
    weight_decay: float = TrainOptions.weight_decay
    clip: float = TrainOptions.clip
    dropout: float = 0.1
    patience: int = 0
    teacher: str | None = None
    teacher_weight: float = 1.0
    teacher_temperature: float = 2.0
    freeze_layers: int = 0
    format: TableFormat | None = None
    encoding: str = UTF8
    skip_bad: bool = False
    micro_batch_tokens: int | None = TrainOptions.micro_batch_tokens
    log_every: int = TrainOptions.log_every
    seed: int = TrainOptions.seed
    device: str = TrainOptions.device
    precision: TrainingPrecision = TrainOptions.precision


def checked_finetuning(options: FinetuneOptions) -> FinetuneOptions:
    """The options. Raises UserError for what can be refused before anything is read."""
    require_seed(options.seed)
    if options.patience < 0:
        raise UserError(f"{option('patience', options.patience)}: expected 0 or more epochs")
    return options


def sequence_limit(options: FinetuneOptions, config: EncoderConfig) -> int:
    """The tokens of a sequence, at most."""
    table = config.max_sequence_length
    default = min(QUICK_LENGTH, table) if options.preset == "quick" else table
    limit = default if options.sequence_length is None else options.sequence_length
    asked = option("sequence_length", limit)
    if limit > table:
        raise UserError(f"{asked} is above what the model reads, {table} tokens")
    if limit < SHORTEST_LENGTH:
        raise UserError(f"{asked}: expected at least {SHORTEST_LENGTH} tokens")
    return limit


def default_epochs(preset: Preset, steps_per_epoch: int) -> int:
    """The epochs of a preset on a table that makes so many steps in an epoch."""
    if preset == "quick":
        return 1
    fewest, most = STANDARD_EPOCHS
    return min(most, max(fewest, math.ceil(MINIMUM_STEPS / steps_per_epoch)))


def epochs_to_train(options: FinetuneOptions, plan: RowPlan) -> int:
    """Passes over the rows: those that are asked for, else the preset's."""
    return default_epochs(options.preset, plan.steps(1)) if options.epochs is None else options.epochs


def default_finetuning_lr(hidden_size: int) -> float:
    """The peak learning rate for a model of this width, where the user names none."""
    return LR_OF_BASE * (BASE_WIDTH / hidden_size) ** LR_EXPONENT


def finetuning_loop_options(options: FinetuneOptions, plan: RowPlan, hidden_size: int) -> TrainOptions:
    """The loop's options, with what follows from the number of rows and the model's width."""
    require_at_least(1, epochs=options.epochs)
    steps_per_epoch = plan.steps(1)
    return derive_train_options(
        options,
        FinetuneOptions,
        steps=plan.steps(epochs_to_train(options, plan)) if options.steps is None else options.steps,
        lr=default_finetuning_lr(hidden_size) if options.lr is None else options.lr,
        compile="off",  # of a minute's training, compiling would be the longer part
        log_every=min(options.log_every, steps_per_epoch),
        evaluate_every=steps_per_epoch,
        checkpoint_every=max(steps_per_epoch, MIN_CHECKPOINT_STEPS),
    )
