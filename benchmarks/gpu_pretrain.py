"""Pretraining on a GPU (a part of `gpu_all.py`): real tokens/s and MFU, compiled and not; where a step's time goes.

FLOPs are counted as in `bothways.train.flops`: no padding, no rows without a mask, nothing twice. MFU divides them by
the card's dense bfloat16 peak of the data sheet, or by the measured peak where the card is not known.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from gpu_parts import PartRun, nominal_peak, wait
from random_text import random_store

from bothways.checkpoint.hugging_face import new_model
from bothways.data.store import TokenStore
from bothways.hardware import choose_device, measured_peak
from bothways.model.config import EncoderConfig
from bothways.precision import choose_precision
from bothways.train.options import Compile
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.pretrain_plan import build_objective, loop_options, make_plan
from bothways.train.step import Stepper, StepResult

# In order of worth: size, sequence length, compiled or not.
CASES: list[tuple[str, int, Compile]] = [
    ("base", 512, "on"), ("large", 512, "on"), ("base", 128, "on"), ("large", 128, "on"), ("base", 512, "off"),
    ("large", 512, "off"), ("base", 128, "off"), ("large", 128, "off"),
]  # fmt: skip
BUDGETS = (16384, 65536)  # tokens of a forward pass, tried beside the default
WARM_UP, MAX_STEPS, MEASURE_SECONDS = 3, 20, 4.0
TOKENS_PER_STEP = 131_072


def run(part: PartRun) -> None:
    device = choose_device("auto")
    dtype = choose_precision("auto", device)
    measured = measured_peak(device, dtype)
    peak = nominal_peak(measured)
    part.tell(dtype=str(dtype), peak_tflops=peak / 1e12, measured_peak_tflops=measured / 1e12)
    with tempfile.TemporaryDirectory() as folder:
        store = random_store(Path(folder) / "store", 400 if part.tiny else 30522, 10_000 if part.tiny else 8_000_000)
        cases: list[tuple[str, int, Compile]] = [("tiny", 32, "off")] if part.tiny else CASES
        longest = 0.0
        for size, length, compiled in cases:
            case = {"size": size, "length": length, "compiled": compiled == "on"}
            if part.left < longest:  # of a case before it
                part.tell(**case, left_out=f"{part.left:.0f} s left, and another took {longest:.0f}")
                continue
            began = time.monotonic()
            with part.attempt(**case):
                options = _options(part, size, length, compiled)
                stepper = _stepper(store, options)
                seconds, results = _measure(stepper, 2 if part.tiny else MAX_STEPS)
                part.tell(**case, **_figures(results, seconds, peak, measured))
                if (size, length) == cases[0][:2]:
                    with part.attempt(**case, profile=True):
                        part.tell(**case, **_profile(stepper, part.out, seconds / len(results)))
            longest = max(longest, time.monotonic() - began)
        for budget in () if part.tiny else BUDGETS:
            case = {"size": "base", "length": 512, "compiled": True, "micro_batch_tokens": budget}
            if part.left > 15:
                with part.attempt(**case):
                    options = _options(part, "base", 512, "on", budget)
                    seconds, results = _measure(_stepper(store, options), MAX_STEPS)
                    part.tell(**case, **_figures(results, seconds, peak, measured))


def _options(part: PartRun, size: str, length: int, compiled: Compile, budget: int | None = None) -> PretrainOptions:
    return PretrainOptions(
        size=size, sequence_length=length, tokens_per_step=300 if part.tiny else TOKENS_PER_STEP, compile=compiled,
        micro_batch_tokens=budget, steps=10_000, decay=1.0,
    )  # fmt: skip


def _stepper(store: TokenStore, options: PretrainOptions) -> Stepper:
    objective = build_objective(options)
    config = EncoderConfig.from_size(
        options.size, vocab_size=store.vocab_size, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    model = new_model(config, objective.head, seed=0)
    return Stepper(model, objective, make_plan(store, options), loop_options(options, config))


def _measure(stepper: Stepper, most: int) -> tuple[float, list[StepResult]]:
    """Seconds of the steps behind the warm-up, and these. most: how many they may be."""
    for step in range(WARM_UP):
        stepper.step(step)
    wait()
    results, began = [], time.perf_counter()
    while len(results) < most and (len(results) < 2 or time.perf_counter() - began < MEASURE_SECONDS):
        results.append(stepper.step(WARM_UP + len(results)))
    wait()
    return time.perf_counter() - began, results


def _figures(results: list[StepResult], seconds: float, peak: float, measured: float) -> dict[str, Any]:
    flops = sum(result.flops for result in results) / seconds
    gib = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    last = results[-1]
    return {
        "tokens_per_second": sum(result.tokens for result in results) / seconds, "tflops": flops / 1e12,
        "mfu": round(flops / peak, 4), "of_measured_peak": round(flops / measured, 4), "gib": gib,
        "steps": len(results), "seconds_per_step": seconds / len(results),
        "mlm_loss": last.sums["mlm_loss"] / last.counts["mlm_loss"],
    }  # fmt: skip


def _profile(stepper: Stepper, out: Path, seconds_per_step: float) -> dict[str, Any]:
    """How long a GPU works in a step, the rest being launches and waiting; the trace is written into `out`."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    compiled = "compiled" if stepper.options.compile == "on" else "plain"
    with profile(activities=activities) as profiler:
        stepper.step(MAX_STEPS + WARM_UP)
        wait()
    profiler.export_chrome_trace(str(out / f"step-{compiled}.json.gz"))
    kernels = [event for event in profiler.key_averages() if event.device_type != torch.autograd.DeviceType.CPU]
    busy = sum(event.self_device_time_total for event in kernels) / 1e6
    top = sorted(kernels, key=lambda event: -event.self_device_time_total)[:12]
    return {
        "trace": f"step-{compiled}.json.gz", "kernels_launched": sum(event.count for event in kernels),
        "gpu_idle_share": round(1 - busy / seconds_per_step, 4) if on_gpu else None,
        "top_kernels": {event.key[:90]: round(event.self_device_time_total / 1e6 / busy, 4) for event in top},
    }  # fmt: skip
