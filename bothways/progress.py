"""What a person at the terminal sees of a long job: one line that moves, or lines now and then where nobody watches."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

# What the line shows of a step's figures, and how.
FIGURES = {
    "loss": ("loss", ".3f"),
    "mlm_accuracy": ("mlm", ".1%"),
    "lm_accuracy": ("lm", ".1%"),
    "nsp_accuracy": ("nsp", ".1%"),
    "sop_accuracy": ("sop", ".1%"),
    "accuracy": ("accuracy", ".1%"),
    "lr": ("lr", ".1e"),
    "grad_norm": ("grad", ".2f"),
    "fraction_of_peak": ("peak", ".0%"),
}


OnProgress = Callable[[int], None]


def no_progress(done: int) -> None:
    """Progress that nobody watches."""


class Progress:
    """step, loss and accuracies, tokens/s, ETA. On a terminal a line in place; elsewhere a line every ten seconds."""

    def __init__(self, title: str, console: Console | None = None, *, shown: bool = True) -> None:
        self.title = title
        self.console = console or Console(file=sys.stderr, quiet=not shown)
        self._live: Live | None = None
        self._speed = self._seconds_per_step = 0.0
        self._steps_seen = 0
        self._said_at = time.monotonic()

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=8, transient=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def update(self, step: int, steps: int, figures: Mapping[str, float], tokens: int, seconds: float) -> None:
        """One step is done: means since the last log line, lr, grad_norm …, and this step's tokens and seconds."""
        weight = max(0.05, 1 / (self._steps_seen + 1))  # a running mean that forgets, after twenty steps, one in twenty
        self._steps_seen += 1
        self._speed += weight * (tokens / max(seconds, 1e-9) - self._speed)
        self._seconds_per_step += weight * (seconds - self._seconds_per_step)
        left = (steps - step) * self._seconds_per_step
        shown = [f"{short} {figures[name]:{form}}" for name, (short, form) in FIGURES.items() if name in figures]
        line = "  ".join(
            [f"{self.title}  step {step:,}/{steps:,}", *shown, f"{self._speed:,.0f} tokens/s", f"ETA {duration(left)}"]
        )
        if self._live:
            self._live.update(Text(line))
        elif time.monotonic() - self._said_at > 10 or step == steps:
            self.say(line)
            self._said_at = time.monotonic()

    def evaluated(self, step: int, figures: dict[str, float]) -> None:
        """Held-out figures, kept on the screen."""
        values = "  ".join(f"{name.removeprefix('eval_')} {value:.3f}" for name, value in figures.items())
        self.say(f"{self.title}  step {step:,}  held-out: {values}")

    def say(self, line: str) -> None:
        """A line of its own."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """`0:05`, `12:30`, `1:02:03`."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
