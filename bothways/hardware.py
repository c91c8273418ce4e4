"""This machine: its device, the precision that it multiplies fast, its threads, how many tokens a batch should have for
it, and its measured peak.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bothways.errors import UserError, option

# Token budgets by type of device: the tokens of one forward pass, at most.
# In training: on a CPU the activations of some 2,000 tokens stay near its caches, and 1,000 or 8,000 were slower. A GPU
# wants large products, and one with more memory than LARGE_GPU_BYTES can have them twice as large.
MICRO_BATCH_TOKENS = {"cpu": 2304, "cuda": 16384}
LARGE_GPU_BYTES = 40 * 2**30
# In inference: on two AVX2 cores MiniLM in float32 is 5 % faster with 1,024 tokens than with 2,048 and 12 % than with
# 4,096, which leave the caches. For a GPU 32,768 was chosen by hand, not measured.
INFERENCE_BATCH_TOKENS = {"cpu": 1024, "cuda": 32768}

PEAK_SECONDS = 0.5  # how long a peak is measured: some hundred products of the shape below
PEAK_PRODUCTS = 10  # of which the fastest is the peak, however slow they are


def choose_device(name: str) -> torch.device:
    """The device of this name; `auto` is the GPU where there is one, under `torchrun` each process's own.

    Raises UserError for a device this machine does not have.
    """
    if not isinstance(name, str):
        raise UserError(f"{option('device', name)}: accepted: auto, cpu, cuda, cuda:N")
    if name.startswith("cuda:") and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        own = f"{option('device', 'cuda')} gives each its own"
        raise UserError(f"{option('device', name)}: several processes cannot share one GPU; {own}")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{option('device', name)}: {reason}; accepted: auto, cpu, cuda, cuda:N") from error
    return device


def cpu_multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for products in bfloat16, and oneDNN may use them."""
    has_instructions = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return has_instructions and allowed_by_onednn("BF16")


def cpu_multiplies_int8() -> bool:
    """Whether the processor has instructions for products of bytes without overflow (VNNI), and oneDNN may use them."""
    return torch.cpu._is_vnni_supported() and allowed_by_onednn("VNNI")


def allowed_by_onednn(instructions: str) -> bool:
    """Whether oneDNN may use VNNI or BF16 instructions, as far as `ONEDNN_MAX_CPU_ISA` (its own variable) goes."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    later = ("AMX", "FP16", "AVX10", "BF16") + ("VNNI",) * (instructions == "VNNI")
    return limit in ("ALL", "DEFAULT") or any(name in limit for name in later)


def micro_batch_tokens(chosen: int | None, device: torch.device) -> int:
    """The token budget of a forward pass in training: the user's, or the device's."""
    if chosen:
        return chosen
    usual = MICRO_BATCH_TOKENS.get(device.type, MICRO_BATCH_TOKENS["cpu"])
    large = device.type == "cuda" and torch.cuda.get_device_properties(device).total_memory > LARGE_GPU_BYTES
    return 2 * usual if large else usual


def inference_batch_tokens(device: torch.device) -> int:
    """The token budget of a forward pass in inference."""
    return INFERENCE_BATCH_TOKENS.get(device.type, INFERENCE_BATCH_TOKENS["cpu"])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch's says that memory ran out, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def memory_errors(device: torch.device, what: str) -> Iterator[None]:
    """Raises UserError where memory runs out. what: that it was to hold, as "a batch of 512 tokens"."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        on_gpu = device.type == "cuda"
        cure = (
            f"{option('device', 'cpu')} uses the machine's own" if on_gpu else "take shorter texts or a smaller model"
        )
        raise UserError(f"out of memory on {device} with {what}; {cure}") from error


def use_threads(number: int) -> None:
    """Let the products of the calling thread use this many threads of torch's."""
    torch.get_num_threads()  # at its first question a thread takes over what was last set anywhere
    torch.set_num_threads(number)


class _KeptThreads:
    """torch's number of threads while callers of `use_threads` are at work: what it was before the first of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.callers = self.number = 0

    def enter(self) -> int:
        with self.lock:
            if not self.callers:
                self.number = torch.get_num_threads()
            self.callers += 1
            return self.number

    def leave(self) -> None:
        with self.lock:
            self.callers -= 1
            torch.set_num_threads(self.number)


_kept_threads = _KeptThreads()


@contextmanager
def keep_number_of_threads() -> Iterator[int]:
    """Afterwards torch's number of threads is what it was, which it yields. A thread made later begins with what any
    thread set last, so whoever calls `use_threads` in threads of its own does it in here; several at a time may."""
    number = _kept_threads.enter()
    try:
        yield number
    finally:
        _kept_threads.leave()


def _use_no_threads_of_the_parent() -> None:
    """In a process forked from this one: products run on one thread. Those of torch's OpenMP stay in the parent, and
    a product that waited for them would hang (pytorch/pytorch#49555); `tokenizers` then warns of its own."""
    global _kept_threads
    _kept_threads = _KeptThreads()  # the lock may be held by a thread that is not in this process
    torch.set_num_threads(1)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_use_no_threads_of_the_parent)


@functools.cache
def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of several matrix products of a layer's shape on this machine, in this precision.

    Takes `PEAK_SECONDS`, and at least `PEAK_PRODUCTS`, of which the fastest counts: a machine that others use as well
    gives less at one time than at another.
    """
    rows, inner, columns = (8192, 8192, 8192) if device.type == "cuda" else (2048, 768, 1024)
    a = torch.randn(rows, inner, device=device, dtype=dtype)
    b = torch.randn(inner, columns, device=device, dtype=dtype)
    out = torch.empty(rows, columns, device=device, dtype=dtype)
    best, products, began = float("inf"), 0, time.perf_counter()
    while products < PEAK_PRODUCTS or time.perf_counter() - began < PEAK_SECONDS:
        products += 1
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * rows * inner * columns / best
