"""What the training loop is told: one dataclass, from which the verbs' own options take their types and defaults."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from bothways.errors import UserError, option
from bothways.model.config import EncoderConfig
from bothways.option_checks import require_at_least, values_of
from bothways.precision import TrainingPrecision, choose_precision

if TYPE_CHECKING:
    import torch

Compile = Literal["auto", "on", "off"]
Parallel = Literal["ddp", "fsdp"]
Optimizer = Literal["adamw", "muon"]


@dataclass(frozen=True)
class TrainOptions:
    """Hyperparameters of the loop. Raises UserError for a value out of range.

    `PretrainOptions` and `FinetuneOptions` name those of these fields that a user may set and take their defaults from
    here. They do not inherit them: a base class's fields come first, and the order of theirs is the order of `--help`
    and of positional arguments.

    warmup: share of the steps. decay: share of the steps, at the end. clip: the largest gradient norm.
    micro_batch_tokens: tokens in one forward pass, of which a step adds up several; None: by the device.
    evaluate_every: steps; 0: only at the end. checkpoint_every: steps. keep_checkpoints: how many of the newest stay.
    """

    steps: int
    lr: float
    warmup: float = 0.1
    decay: float = 1.0
    weight_decay: float = 0.01
    beta2: float = 0.999
    eps: float = 1e-8
    clip: float = 1.0
    seed: int = 0
    micro_batch_tokens: int | None = None
    log_every: int = 10
    evaluate_every: int = 0
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    device: str = "auto"
    precision: TrainingPrecision = "auto"
    compile: Compile = "auto"
    parallel: Parallel = "ddp"
    optimizer: Optimizer = "adamw"
    tensorboard: bool = False
    profile: bool = False

    def __post_init__(self) -> None:
        require_at_least(1, steps=self.steps, micro_batch_tokens=self.micro_batch_tokens, log_every=self.log_every)
        require_at_least(1, checkpoint_every=self.checkpoint_every, keep_checkpoints=self.keep_checkpoints)
        for name in ("lr", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{option(name, getattr(self, name))}: expected a number above 0")
        if not 0 <= self.warmup < 1:
            raise UserError(f"{option('warmup', self.warmup)}: expected a share of the steps, 0 to below 1")
        if not 0 < self.decay <= 1:
            raise UserError(f"{option('decay', self.decay)}: expected a share of the steps, above 0 to 1")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"{option('weight_decay', self.weight_decay)}: expected 0 or more")
        if self.optimizer == "muon" and self.parallel == "fsdp":
            cut = f"{option('parallel', 'fsdp')} cuts them"
            raise UserError(f"{option('optimizer', 'muon')}: needs whole matrices, and {cut}; use ddp")
        if self.evaluate_every < 0:
            raise UserError(f"{option('evaluate_every', self.evaluate_every)}: expected 0 (only at the end) or more")


def derive_train_options(options: Any, kind: type, **derived: Any) -> TrainOptions:
    """The loop's options: every field that it shares with `kind` as the user's `options` have it, and what is derived.

    kind: the dataclass of the verb's options, `PretrainOptions` or `FinetuneOptions`. derived: what follows from the
    data and the model, by name; it replaces what the user left to be derived.
    """
    names = {field.name for field in fields(TrainOptions)}
    shared = {name: value for name, value in values_of(options, kind).items() if name in names}
    return TrainOptions(**{**shared, **derived})


def compiles(options: TrainOptions, config: EncoderConfig, device: torch.device) -> bool:
    """Whether the step goes through `torch.compile`.

    `auto` compiles on GPUs in bfloat16 without dropout, where a C compiler is at hand for the kernels. On a CPU the
    gain was within the noise of the measurement, in float32 and bfloat16.
    Raises UserError for `on` where it cannot be: without a compiler, with dropout in attention, or with fsdp.
    """
    import torch  # seconds, which `--help` need not wait for

    on_gpu = device.type == "cuda"
    in_bfloat16 = choose_precision(options.precision, device) == torch.bfloat16
    compilers = ("gcc", "cc", "clang") if on_gpu else ("g++", "clang++")
    missing = [
        reason
        for reason, applies in (
            (f"needs a C compiler on the path ({' or '.join(compilers)})", not any(map(shutil.which, compilers))),
            (f"not together with {option('parallel', 'fsdp')}", options.parallel == "fsdp"),
            (f"needs {option('dropout', 0)}", config.attention_probs_dropout_prob > 0),
            (
                f"needs {option('precision', 'bfloat16')} on a GPU",
                on_gpu and not in_bfloat16,
            ),
        )
        if applies
    ]
    if options.compile == "on" and missing:
        raise UserError(f"{option('compile', 'on')}: {missing[0]}")
    return options.compile == "on" or (options.compile == "auto" and on_gpu and not missing)
