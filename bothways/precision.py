"""Precision: the number type that matrices are multiplied in, in training and in inference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bothways.errors import UserError, option

if TYPE_CHECKING:
    import torch

TrainingPrecision = Literal["auto", "float32", "bfloat16"]
InferencePrecision = Literal["auto", "fastest", "float32", "bfloat16", "int8"]
PRECISIONS: tuple[InferencePrecision, ...] = ("float32", "bfloat16", "int8")


def choose_precision(precision: TrainingPrecision, device: torch.device) -> torch.dtype:
    """The type that matrices are multiplied in.

    `auto` is bfloat16 where the hardware multiplies it (AMX, AVX512-BF16, GPUs since Ampere), else float32: without
    such hardware a bfloat16 matrix product is several times slower than a float32 one.
    """
    import torch  # seconds, which `--help` need not wait for

    from bothways.hardware import cpu_multiplies_bfloat16

    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if cpu_multiplies_bfloat16() else torch.float32


def choose_inference_precision(precision: InferencePrecision, device: torch.device) -> InferencePrecision:
    """The precision that a device runs: `auto` is bfloat16 where the hardware multiplies it, else float32;
    never int8, whose answers differ. `fastest` is int8 where the processor adds up its products without overflow
    (VNNI), else as `auto`.

    Raises UserError for an unknown name, and for int8 on anything but a CPU.
    """
    import torch

    from bothways.hardware import cpu_multiplies_int8

    if precision not in ("auto", "fastest", *PRECISIONS):
        raise UserError(f"{option('precision', precision)}: accepted: auto, fastest, {', '.join(PRECISIONS)}")
    if precision == "fastest" and device.type == "cpu" and cpu_multiplies_int8():
        return "int8"
    if precision in ("auto", "fastest"):
        half = choose_precision("auto", device) == torch.bfloat16
        return "bfloat16" if half else "float32"
    if precision == "int8" and device.type != "cpu":
        raise UserError(f"{option('precision', 'int8')}: on a CPU only, this is {device}; use bfloat16")
    if precision == "int8" and "onednn" not in torch.backends.quantized.supported_engines:
        raise UserError(f"{option('precision', 'int8')}: this build of torch has no oneDNN; use float32")
    return precision
