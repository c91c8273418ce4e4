"""What this machine has: the device, the precision that it multiplies fast, the tokens that a forward pass should have,
and its measured peak.
"""

from __future__ import annotations

import functools
import os
import time
from typing import Literal

import torch

from bothways.errors import UserError

TrainingPrecision = Literal["auto", "float32", "bfloat16"]


# Tokens in one forward pass, at most. On a CPU the activations of some 2,000 tokens stay near its caches, and 1,000 or
# 8,000 were slower; a GPU wants large products.
MICRO_BATCH_TOKENS = {"cpu": 2304, "cuda": 16384}


HALF = torch.bfloat16


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


def choose_precision(precision: TrainingPrecision, device: torch.device) -> torch.dtype:
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


@functools.cache
def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the best of several matrix products of a layer's shape on this machine, in this precision.

    Takes half a second. A machine that others use as well gives less at one time than at another.
    """
    rows, inner, columns = (8192, 8192, 8192) if device.type == "cuda" else (2048, 768, 1024)
    a = torch.randn(rows, inner, device=device, dtype=dtype)
    b = torch.randn(inner, columns, device=device, dtype=dtype)
    out = torch.empty(rows, columns, device=device, dtype=dtype)
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < 0.5:
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * rows * inner * columns / best
