"""The compiled code: the encoder for inference; attention, dropout, what stands between products, and
the cross-entropy over a vocabulary, for training on a CPU.

An install builds one library for each kind of CPU if there is a C++ compiler; `library()` opens the one for this CPU.
Without it torch's own kernels do the work.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import TypeVar

import torch

from bothways.native.building import accepted_fingerprints

FOLDER = Path(__file__).parent
MIRRORS: list[type[ctypes.Structure]] = []
TRAINING_CALLS = (
    "attend", "attend_backward", "bias_gelu", "bias_gelu_backward", "residual_norm", "residual_norm_backward",
    "cross_entropy",
)  # fmt: skip
StructureType = TypeVar("StructureType", bound=type[ctypes.Structure])


@functools.cache
def library() -> ctypes.CDLL | None:
    """The library for this CPU; None where it was not built, or was built for another CPU or from other sources."""
    libraries = (open_library(FOLDER / f"native_{variant}.so", variant) for variant in _variants_for_cpu())
    return next((library for library in libraries if library is not None), None)


def is_missing() -> bool:
    """Whether this CPU has no library although an install with a compiler would build one."""
    return library() is None and bool(_variants_for_cpu())


def describe_library() -> str:
    """Whether this CPU's library is there, and for which instructions, for `bothways --version`."""
    opened, variants = library(), _variants_for_cpu()
    if opened is not None:
        return f"compiled, for {Path(opened._name).stem.removeprefix('native_').upper()}"
    cure = "install again where there is a C++ compiler" if variants else "there is none for this kind of CPU"
    return f"not compiled, torch's own kernels do the work ({cure})"


def _variants_for_cpu() -> tuple[str, ...]:
    """The variants that this CPU can run, the fastest first; none where torch reports anything but x86-64."""
    vnni, half = torch.cpu._is_vnni_supported(), torch.cpu._is_avx512_bf16_supported()
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # since torch 2.13
    narrow = {"avx_vnni": capabilities.get("avx_vnni", False), "avx2": True}
    wide = {"avx512_bf16": vnni and half, "avx512_vnni": vnni, "avx512": True, **narrow}
    runs = {"AVX512": wide, "AVX2": narrow}.get(torch.backends.cpu.get_cpu_capability(), {})
    return tuple(variant for variant, is_possible in runs.items() if is_possible)


def open_library(path: Path, variant: str) -> ctypes.CDLL | None:
    """The library at `path`; None where the file is missing, or was built from other sources or with other flags.

    Raises AssertionError where a structure in `MIRRORS` has not the size of its C++ structure.
    """
    try:
        loaded = ctypes.CDLL(str(path))
        loaded.bothways_fingerprint.restype = ctypes.c_int64
        if loaded.bothways_fingerprint() not in accepted_fingerprints(FOLDER, variant):
            return None
    except (OSError, AttributeError):
        return None
    for mirror in MIRRORS:
        _check_size(loaded, mirror)
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    for count in (loaded.bothways_panel, loaded.bothways_words, loaded.bothways_scratch):
        count.restype = number
    loaded.bothways_words.argtypes = loaded.bothways_scratch.argtypes = [number, number]
    loaded.bothways_pack.argtypes = [pointer, number, number, number, pointer, pointer, pointer]
    loaded.bothways_encode.argtypes = loaded.bothways_multiply.argtypes = [pointer]
    for drop in (loaded.bothways_drop_float32, loaded.bothways_drop_bfloat16):
        drop.argtypes = [pointer, pointer, number, ctypes.c_uint64, ctypes.c_double, number]
    for name in TRAINING_CALLS:
        call = getattr(loaded, f"bothways_{name}")
        call.argtypes, call.restype = [pointer], number
    return loaded


def mirror_structure(structure: StructureType) -> StructureType:
    """Declares a class as the mirror of the C++ structure of its name, so that every library is checked for its size.

    Raises AssertionError where a library that is already open has another size.
    """
    MIRRORS.append(structure)
    if library.cache_info().currsize and (loaded := library()) is not None:
        _check_size(loaded, structure)
    return structure


def _check_size(loaded: ctypes.CDLL, structure: type[ctypes.Structure]) -> None:
    name = structure.__name__
    function = getattr(loaded, f"bothways_sizeof_{name}", None)
    assert function is not None, f"{loaded._name} does not tell the size of {name}"
    function.restype = ctypes.c_int64
    ours, theirs = ctypes.sizeof(structure), function()
    assert ours == theirs, f"{name} has {ours} bytes in Python and {theirs} bytes in {loaded._name}"


def has_training_kernels(tensor: torch.Tensor) -> bool:
    """Whether the library can train with such tensors: float32 or bfloat16, on a CPU, outside of torch.compile."""
    accepted = tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.bfloat16)
    return accepted and not torch.compiler.is_compiling() and library() is not None
