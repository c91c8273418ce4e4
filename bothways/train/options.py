"""What every training verb can be told, and how precision and device follow from the machine."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass
from typing import Literal

import torch

from bothways.errors import UserError
from bothways.model.config import BertConfig

Precision = Literal["auto", "float32", "bfloat16"]
Compile = Literal["auto", "on", "off"]
Parallel = Literal["ddp", "fsdp"]
Optimizer = Literal["adamw", "muon"]

# Tokens in one forward pass, at most. On a CPU the activations of some 2,000 tokens stay near its caches, and 1,000 or
# 8,000 were slower; a GPU wants large products.
MICRO_BATCH_TOKENS = {"cpu": 2304, "cuda": 16384}


HALF = torch.bfloat16


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
    precision: Precision = "auto"
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


def choose_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one, under `torchrun` each process's own.

    Raises UserError for a device this machine does not have.
    """
    if name.startswith("cuda:") and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(f"--device {name}: several processes cannot share one GPU; --device cuda gives each its own")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: {str(error).splitlines()[0]}; accepted: auto, cpu, cuda, cuda:N") from error
    return device


def choose_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the hardware multiplies it (AMX, AVX512-BF16, GPUs since Ampere), else float32.

    Without such hardware a bfloat16 matrix product is several times slower than a float32 one.
    """
    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast and allowed_by_onednn("BF16") else torch.float32


def allowed_by_onednn(instructions: str) -> bool:
    """Whether oneDNN may use VNNI or BF16 instructions, as far as `ONEDNN_MAX_CPU_ISA` (its own variable) goes."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    later = ("AMX", "FP16", "AVX10", "BF16") + ("VNNI",) * (instructions == "VNNI")
    return limit in ("ALL", "DEFAULT") or any(name in limit for name in later)


def micro_batch_tokens(chosen: int | None, device: torch.device) -> int:
    """The token budget of one forward pass: the one chosen, or what suits the device."""
    return chosen or MICRO_BATCH_TOKENS.get(device.type, MICRO_BATCH_TOKENS["cpu"])


def compiles(options: TrainOptions, config: BertConfig, device: torch.device) -> bool:
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
