"""What every training verb can be told, and how precision and device follow from the machine."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from typing import Literal

import torch

from bothways.errors import UserError
from bothways.hardware import HALF, TrainingPrecision, choose_precision
from bothways.model.config import EncoderConfig

Compile = Literal["auto", "on", "off"]
Parallel = Literal["ddp", "fsdp"]
Optimizer = Literal["adamw", "muon"]


@dataclass(frozen=True)
class TrainOptions:
    """Hyperparameters of the loop; the verbs' own dataclasses fill it in."""

    steps: int
    lr: float
    warmup: float = 0.1  # share of the steps
    weight_decay: float = 0.01
    beta2: float = 0.999
    eps: float = 1e-8
    clip: float = 1.0  # largest gradient norm
    seed: int = 0
    micro_batch_tokens: int | None = None  # tokens in one forward pass, a step adds up several; None: by the device
    log_every: int = 10
    evaluate_every: int = 0  # steps; 0: only at the end
    checkpoint_every: int = 500  # steps
    keep_checkpoints: int = 2  # the newest so many
    device: str = "auto"
    precision: TrainingPrecision = "auto"
    compile: Compile = "auto"
    parallel: Parallel = "ddp"
    optimizer: Optimizer = "adamw"
    tensorboard: bool = False
    profile: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "micro_batch_tokens", "log_every", "checkpoint_every", "keep_checkpoints"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected at least 1")
        for name in ("lr", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"--{name} {getattr(self, name)}: expected a number above 0")
        if not 0 <= self.warmup < 1:
            raise UserError(f"--warmup {self.warmup}: expected a share of the steps, 0 to below 1")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"--weight-decay {self.weight_decay}: expected 0 or more")
        if self.optimizer == "muon" and self.parallel == "fsdp":
            raise UserError("--optimizer muon: needs whole matrices, and --parallel fsdp cuts them; use ddp")
        if self.evaluate_every < 0:
            raise UserError(f"--evaluate-every {self.evaluate_every}: expected 0 (only at the end) or more")


def check_seed(seed: int) -> None:
    """Raises UserError for a seed that does not fit 63 bits."""
    if not 0 <= seed < 1 << 63:
        raise UserError(f"--seed {seed}: expected 0 to 2^63 - 1")


def compiles(options: TrainOptions, config: EncoderConfig, device: torch.device) -> bool:
    """Whether the step goes through `torch.compile`.

    `auto` does so on GPUs in bfloat16 without dropout, where a C compiler is at hand for the kernels. On a CPU what it
    gained was within the noise of the measurement, in float32 and bfloat16.
    Raises UserError for `on` where it cannot be: without a compiler, with dropout in attention, or with fsdp.
    """
    on_gpu = device.type == "cuda"
    compilers = ("gcc", "cc", "clang") if on_gpu else ("g++", "clang++")
    missing = [
        reason
        for reason, applies in (
            (f"needs a C compiler on the path ({' or '.join(compilers)})", not any(map(shutil.which, compilers))),
            ("not together with --parallel fsdp", options.parallel == "fsdp"),
            ("needs --dropout 0", config.attention_probs_dropout_prob > 0),
            ("needs --precision bfloat16 on a GPU", on_gpu and choose_precision(options.precision, device) != HALF),
        )
        if applies
    ]
    if options.compile == "on" and missing:
        raise UserError(f"--compile on: {missing[0]}")
    return options.compile == "on" or (options.compile == "auto" and on_gpu and not missing)
