"""Options as keywords of Python's functions, for type checkers and editors: one TypedDict a function.

What they mean is told by the dataclasses, whose names and types these are; tests/test_python_way.py compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

from bothways.data.tables import TableFormat
from bothways.inference.loaded import LoadedModel
from bothways.model.pooling import Pooling
from bothways.precision import TrainingPrecision
from bothways.tasks.classify_options import ProblemType
from bothways.tasks.entities import Scheme
from bothways.train.options import Compile, Optimizer, Parallel


class PretrainKeywords(TypedDict, total=False):
    """The fields of `PretrainOptions`."""

    size: str
    model: str | Path | LoadedModel | None  # `PretrainOptions` has the name of it
    keep_layers: str | None
    family: str | None  # of `model.families.FAMILIES`
    objective: str  # of `tasks.objectives.OBJECTIVES`
    teacher: str | Path | LoadedModel | None  # `PretrainOptions` has the name of it
    teacher_losses: Sequence[str]
    teacher_layer: int | None
    relation_heads: int
    teacher_temperature: float
    positions: Literal["learned", "sinusoidal"]
    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"] | None
    steps: int | None
    hours: float | None
    minutes: float | None
    tokens_per_step: int
    sequence_length: int
    phases: Sequence[str]
    lr: float | None
    warmup: float
    decay: float | None
    weight_decay: float
    clip: float
    optimizer: Optimizer
    dropout: float
    mask_rate: float
    mask_rate_end: float | None
    mask_share: float
    whole_word_masking: bool
    mask_repeats: bool
    short: float
    max_position_embeddings: int
    micro_batch_tokens: int | None
    log_every: int
    evaluate_every: int | None
    validation_tokens: int | None
    checkpoint_every: int | None
    keep_checkpoints: int
    seed: int
    device: str
    precision: TrainingPrecision
    compile: Compile
    parallel: Parallel
    tensorboard: bool
    profile: bool


class ColumnKeywords(TypedDict, total=False):
    """The columns that some task reads."""

    text_column: str
    pair_column: str | None
    label_column: str
    question_column: str
    context_column: str
    answers_column: str
    start_column: str
    words_column: str
    labels_column: str
    spans_column: str
    choices_column: str
    score_column: str
    messages_column: str
    prompt_column: str | None
    response_column: str | None


class FinetuneKeywords(ColumnKeywords, total=False):
    """The fields of `FinetuneOptions`, and the options that tasks have of their own."""

    preset: Literal["quick", "standard"]
    epochs: int | None
    steps: int | None
    batch_size: int
    tokens_per_step: int | None
    sequence_length: int | None
    lr: float | None
    warmup: float
    weight_decay: float
    clip: float
    dropout: float
    patience: int
    teacher: str | Path | LoadedModel | None  # `FinetuneOptions` has the name of it
    teacher_weight: float
    teacher_temperature: float
    freeze_layers: int
    format: TableFormat | None
    encoding: str
    skip_bad: bool
    micro_batch_tokens: int | None
    log_every: int
    seed: int
    device: str
    precision: TrainingPrecision
    # of classify
    problem_type: ProblemType
    class_weights: Sequence[str]
    label_names: Sequence[str]
    # of answer and tag
    overlap: int
    max_answer_length: int
    scheme: Scheme
    # of choose and similar
    choice_columns: Sequence[str]
    pooling: Pooling | None
    normalize: bool
