"""The parts that are compiled: the encoder for inference, attention and dropout for training on a CPU.

One library for each kind of CPU, built when Bothways is installed, if there is a compiler. Without it torch's own
kernels do the work.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import torch

from bothways.native.building import accepted

FOLDER = Path(__file__).parent


@functools.cache
def library() -> ctypes.CDLL | None:
    """The library for this CPU; None where it was not built, or for another one."""
    found = (open_library(FOLDER / f"native_{kind}.so", kind) for kind in _variants_for_cpu())
    return next((one for one in found if one is not None), None)


def is_missing() -> bool:
    """Whether an install with a compiler would give this CPU a library that it has not."""
    return library() is None and bool(_variants_for_cpu())


def _variants_for_cpu() -> tuple[str, ...]:
    """Those for this CPU, the best first; torch's capability has other names elsewhere."""
    return {"AVX2": ("avx2",), "AVX512": ("avx512", "avx2")}.get(torch.backends.cpu.get_cpu_capability(), ())


def open_library(path: Path, kind: str) -> ctypes.CDLL | None:
    """A library for this kind of CPU by its path; None where it is not there, or was built from other sources or with
    other flags."""
    try:
        loaded = ctypes.CDLL(str(path))
        loaded.bothways_source.restype = ctypes.c_int64
        if loaded.bothways_source() not in accepted(FOLDER, kind):
            return None
    except (OSError, AttributeError):
        return None
    loaded.bothways_panel.restype = ctypes.c_int64
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    loaded.bothways_pack.argtypes = [pointer, number, number, pointer]
    loaded.bothways_drop.argtypes = [pointer, pointer, number, number, ctypes.c_uint64, ctypes.c_double, number]
    for attend in (loaded.bothways_attend, loaded.bothways_attend_backward):
        attend.argtypes, attend.restype = [pointer], number
    return loaded


def has_training_kernels(tensor: torch.Tensor) -> bool:
    """Whether the library has what training needs for such tensors: float32 or bfloat16, on a CPU."""
    fit = tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.bfloat16)
    return fit and not torch.compiler.is_compiling() and library() is not None
