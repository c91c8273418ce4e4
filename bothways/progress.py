"""What a person sees of a long job on standard error: one line that is rewritten in place at a terminal, and a line
now and then where standard error is a file. Training, counts of sequences and bytes of text differ in the figures only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol, Self

LOGGER = logging.getLogger("bothways")  # what is said where nothing is shown, at the level INFO

TERMINAL_SECONDS = 0.5  # between two lines: fast enough to look alive, slow enough to read
FILE_SECONDS = 10.0  # a training of a day leaves 9,000 lines in a log, which is little beside its results
SILENT_SECONDS = 2.0  # at the start; nobody wonders about a job that is done by then

# A step's figures on the line: name in metrics.jsonl → (short name, format).
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
    """An `OnProgress` that shows nothing."""


def print_note(text: str, end: str = "\n") -> None:
    """Print a line on standard error, where there is one that takes it: a job goes on without its notes, after its
    terminal has gone or the disk behind a log is full."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
            print(text, end=end, file=sys.stderr, flush=True)


class ProgressLine:
    """The line, without figures: when it is shown, and how it ends. As a context manager it is ended with the block.

    title: what the job is. shown: False shows nothing at all, as on all processes but the main one.
    """

    def __init__(self, title: str, *, shown: bool = True) -> None:
        self.title, self._shown = title, shown
        self._in_place = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._began = self._drawn_at = time.monotonic()
        self._line = ""  # what stands at the terminal and is to be rewritten

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def elapsed(self) -> float:
        """Seconds since the job began."""
        return time.monotonic() - self._began

    def is_due(self, last: bool = False) -> bool:
        """Whether a line is to be shown now. last: the job is done, so no other line will come."""
        every = TERMINAL_SECONDS if self._in_place else FILE_SECONDS
        waited = time.monotonic() - self._drawn_at
        return self._shown and self.elapsed >= SILENT_SECONDS and (waited >= every or last)

    def draw(self, line: str, last: bool = False) -> None:
        """Show a line in place of the one before; the last one stays."""
        self._drawn_at = time.monotonic()
        if not self._in_place:
            print_note(line)
            return
        print_note(f"{self._eraser()}{line}", end="\n" if last else "")
        self._line = "" if last else line

    def say(self, text: str) -> None:
        """Print a line that stays; the line in place goes on below it. What is not shown is logged."""
        if not self._shown:
            LOGGER.info(text)
        else:
            print_note(f"{self._eraser()}{text}")
            if self._line:
                print_note(self._line, end="")

    def end(self) -> None:
        """Leave the line in place as it is, so that what is printed next begins on its own line."""
        if self._line:
            print_note("")
            self._line = ""

    def _eraser(self) -> str:
        """The control sequence that clears the line in place, which a narrow terminal shows in several rows."""
        if not self._line:
            return ""
        rows = -(-len(self._line) // max(1, shutil.get_terminal_size().columns))
        return (f"\x1b[{rows - 1}A" if rows > 1 else "") + "\r\x1b[J"


class Progress(ProgressLine):
    """The progress of a training: step, loss and accuracies, tokens/s, ETA."""

    def __init__(self, title: str, *, shown: bool = True) -> None:
        super().__init__(title, shown=shown)
        self._tokens_per_second = self._seconds_per_step = 0.0
        self._steps_seen = 0

    def update(self, step: int, steps: int, figures: Mapping[str, float], tokens: int, seconds: float) -> None:
        """Show that a step is done.

        steps: of the whole training. figures: means since the last log line, lr, grad_norm, … by their names in
        `FIGURES`; others are not shown. tokens, seconds: of this step.
        """
        # A running mean of about twenty steps; the first steps count alike, or else it would begin at nothing.
        weight = max(0.05, 1 / (self._steps_seen + 1))
        self._steps_seen += 1
        self._tokens_per_second += weight * (tokens / max(seconds, 1e-9) - self._tokens_per_second)
        self._seconds_per_step += weight * (seconds - self._seconds_per_step)
        last = step == steps
        if self.is_due(last):
            shown = [f"{short} {figures[name]:{form}}" for name, (short, form) in FIGURES.items() if name in figures]
            speed = f"{self._tokens_per_second:,.0f} tokens/s"
            left = f"ETA {duration((steps - step) * self._seconds_per_step)}"
            self.draw("  ".join([f"{self.title}  step {step:,}/{steps:,}", *shown, speed, left]), last)

    def evaluated(self, step: int, figures: Mapping[str, float]) -> None:
        """Show held-out figures on a line that stays."""
        values = "  ".join(f"{name.removeprefix('eval_')} {value:.3f}" for name, value in figures.items())
        self.say(f"{self.title}  step {step:,}  held-out: {values}")


class CountProgress(ProgressLine):
    """The progress of a job over many sequences or rows: how many are done, how many a second, ETA. An `OnProgress`.

    total: None where it is not known. before: how many an earlier run had done.
    """

    def __init__(self, title: str, total: int | None = None, before: int = 0, *, shown: bool = True) -> None:
        super().__init__(title, shown=shown)
        self.total, self._before = total, before

    def __call__(self, done: int) -> None:
        """Show that so many are done, those of an earlier run included."""
        last = done == self.total
        if not self.is_due(last):
            return
        rate = (done - self._before) / self.elapsed
        left = f"/{self.total:,}" if self.total else ""
        if self.total and rate:
            left += f"  ETA {duration((self.total - done) / rate)}"
        self.draw(f"{self.title}  {done:,}{left}  {rate:,.0f}/s", last)


class DocumentCounts(Protocol):
    """What `ByteProgress` shows of a corpus: `text.corpus.CorpusReport` has it."""

    documents: int
    bytes_read: int


class ByteProgress(ProgressLine):
    """The progress of reading a corpus: documents, tokens, MB/s and ETA. total: bytes of all files on disk."""

    def __init__(self, title: str, total: int, *, shown: bool = True) -> None:
        super().__init__(title, shown=shown)
        self.total = total

    def update(self, report: DocumentCounts, tokens: int | None = None) -> None:
        """Show how much is read. tokens: how many it became; None where it is not cut into tokens yet."""
        if not self.is_due():
            return
        done = max(1, report.bytes_read)
        left = self.elapsed * max(0, self.total - done) / done
        counted = f"{report.documents:,} documents" + (f", {tokens:,} tokens" if tokens is not None else "")
        self.draw(f"{self.title}  {counted}  {done / 1e6 / self.elapsed:.1f} MB/s  ETA {duration(left)}")


def duration(seconds: float) -> str:
    """`0:05`, `12:30`, `1:02:03`."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
