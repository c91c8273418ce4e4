"""A small pretraining that tests run: its options, what stops it, and all that it leaves to the bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from bothways.progress import Progress
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.run import RunDirectory

OPTIONS = PretrainOptions(
    size="tiny", steps=12, tokens_per_step=300, sequence_length=32, dropout=0.1, log_every=5, evaluate_every=6,
    checkpoint_every=100, max_position_embeddings=64, precision="float32",
)  # fmt: skip


class StopAfter(Progress):
    """Sends the process a signal after a step."""

    def __init__(self, step: int, number: signal.Signals = signal.SIGTERM) -> None:
        super().__init__("test")
        self.stop_step, self.number = step, number
        self.said: list[str] = []

    def update(self, step: int, *rest: Any) -> None:
        if step == self.stop_step:
            os.kill(os.getpid(), self.number)

    def say(self, line: str) -> None:
        self.said.append(line)


def state_of(run: Path) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """Every byte of the last checkpoint and the model, and the metrics without the clock's values."""
    last = RunDirectory(run).checkpoints()[-1]
    files = {name: (last / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")}
    files["model"] = (run / "model" / "model.safetensors").read_bytes()
    clock = ("seconds", "tokens_per_second", "fraction_of_peak")
    return files, [{k: v for k, v in line.items() if k not in clock} for line in RunDirectory(run).metrics()]
