"""The parts of `gpu_all.py`, each a process: `python benchmarks/gpu_parts.py NAME --seconds N`."""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
# Dense bfloat16 FLOP/s by the makers' data sheets; a name that is in another is behind it.
PEAKS = {
    "B200": 2250e12, "GH200": 989e12, "H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12,
    "A100": 312e12, "A40": 150e12, "A30": 165e12, "A10G": 70e12, "A10": 125e12, "L40S": 362e12, "L40": 181e12,
    "L4": 121e12, "RTX 5090": 210e12, "RTX 4090": 165e12, "RTX 3090": 71e12,
}  # fmt: skip


@dataclass(frozen=True)
class PartRun:
    """What a part is told. seconds: from `began`, of `time.monotonic()`, in which it should be done."""

    seconds: float
    out: Path
    data: Path | None
    model: Path | None
    tiny: bool
    began: float

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.began)

    def tell(self, **result: Any) -> None:
        """A result, to be kept."""
        print("RESULT " + json.dumps(result, default=str), flush=True)

    @contextlib.contextmanager
    def attempt(self, **case: Any) -> Iterator[None]:
        """A measurement that may fail without the others; its error is told as the result."""
        try:
            yield
        except Exception as error:
            traceback.print_exc(file=sys.stdout)
            self.tell(**case, failed=f"{type(error).__name__}: {str(error).strip()[:400]}")
        if "torch._dynamo" in sys.modules:
            torch._dynamo.reset()  # what is compiled of a model holds it
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def nominal_peak(measured: float) -> float:
    """The card's dense bfloat16 FLOP/s; the measured ones where the table does not have it."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((peak for known, peak in PEAKS.items() if known in name), measured)


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def best_seconds(call: Callable[[], object], times: int = 3) -> float:
    """The best of several calls, after one that is not counted."""
    best = float("inf")
    for turn in range(times + 1):
        wait()
        began = time.perf_counter()
        call()
        wait()
        best = min(best, time.perf_counter() - began) if turn else best
    return best


def tests(part: PartRun) -> None:
    """`tests/gpu`: the outcome of each file, and the last lines of each failure."""
    import pytest

    class Outcomes:
        def __init__(self) -> None:
            self.counts: dict[str, int] = {}

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.when != "call" and report.passed:
                return
            self.counts[report.outcome] = self.counts.get(report.outcome, 0) + 1
            if report.failed:
                part.tell(test=report.nodeid, failed="\n".join(report.longreprtext.strip().splitlines()[-12:]))

    outcomes = Outcomes()
    folder = HERE.parent / "tests" / "gpu"
    files = sorted(
        folder.glob("test_*.py"), key=lambda path: ("attention", "inference").count(path.stem[5:]), reverse=True
    )
    for path in files:
        chosen = ["-k", "kernel"] if part.tiny else []
        outcomes.counts = {}
        began = time.monotonic()
        code = pytest.main([str(path), "-q", "--tb=short", "-p", "no:cacheprovider", *chosen], plugins=[outcomes])
        part.tell(file=path.name, **outcomes.counts, exit_code=int(code), seconds=round(time.monotonic() - began, 1))


def run(name: str, part: PartRun) -> None:
    if name == "tests":
        tests(part)
    else:
        importlib.import_module(f"gpu_{name}").run(part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["tests", "pretrain", "encode", "finetune"])
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "gpu")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--tiny", action="store_true")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    options = {name: value for name, value in vars(chosen).items() if name != "name"}
    run(chosen.name, PartRun(**options, began=time.monotonic()))


if __name__ == "__main__":
    main()
