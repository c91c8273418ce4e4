"""What a person sees of a long job on standard error: one line that is rewritten in place at a terminal, and a line
now and then where standard error is a file. Training, counts of sequences and bytes of text differ in the figures only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Protocol, Self

from bothways.errors import as_shown

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


# Figures that a narrow terminal does without, the first of them first.
LEAST_FIGURES = ("grad_norm", "lr", "fraction_of_peak", "tokens_per_second")

OnProgress = Callable[[int], None]


def under_torchrun() -> bool:
    """Whether `torchrun` started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ and "MASTER_ADDR" in os.environ


def is_main_process() -> bool:
    """Whether this process is the one that prints and writes: the first of `torchrun`'s, or the only one."""
    return not under_torchrun() or os.environ["RANK"] == "0"


def no_progress(done: int) -> None:
    """An `OnProgress` that shows nothing."""


_screen = threading.RLock()  # a signal is answered by another thread
_standing: ProgressLine | None = None  # whose line stands at the terminal and is to be rewritten; there is one terminal


def print_note(text: str) -> None:
    """Print a line on standard error, where there is one that takes it: a job goes on without its notes, after its
    terminal has gone or the disk behind a log is full. A terminal gets it in lines of whole words, and a line in place
    goes on below it."""
    text = as_shown(text)
    if _at_terminal():
        text = "\n".join(textwrap.wrap(text, terminal_columns(), break_long_words=False, break_on_hyphens=False))
    with _screen:
        if _standing is None:
            _write(f"{text}\n")
        else:
            _write(f"{_standing.eraser()}{text}\n{_standing.line}")


def end_line() -> None:
    """End the line in place, if there is one, so that what is printed next begins on its own line."""
    if _standing is not None:
        _standing.end()


@contextlib.contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show what is being done while nothing else is said, at a terminal only; it is gone with the block."""
    with ProgressLine("") as line:
        line.wait(text)
        yield


def terminal_columns() -> int:
    """Columns of the terminal."""
    return max(1, shutil.get_terminal_size().columns)


def _at_terminal() -> bool:
    """Whether standard error is a terminal that can rewrite a line."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _write(text: str) -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
            print(text, end="", file=sys.stderr, flush=True)


class ProgressLine:
    """The line, without figures: when it is shown, and how it ends. As a context manager it is ended with the block.

    title: what the job is. shown: False shows nothing at all, as on all processes but the main one.
    """

    def __init__(self, title: str, *, shown: bool = True) -> None:
        self.title, self._shown = title, shown
        self._in_place = _at_terminal()
        self._began = self._drawn_at = time.monotonic()
        self.line = ""  # what stands at the terminal and is to be rewritten
        self._fleeting = False  # it is not left there

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
        global _standing
        self._drawn_at = time.monotonic()
        if not self._in_place:
            print_note(line)
            return
        with _screen:
            if _standing is not None and _standing is not self:
                _standing.end()
            _write(f"{self.eraser()}{line}" + ("\n" if last else ""))
            self.line, self._fleeting = "" if last else line, False
            _standing = None if last else self

    def wait(self, text: str) -> None:
        """Show at a terminal what is being done, until there is a line to show or the job ends."""
        if self._in_place and self._shown:
            self.draw(as_shown(text))
            self._fleeting = True

    def say(self, text: str) -> None:
        """Print a line that stays; the line in place goes on below it. What is not shown is logged."""
        if self._shown:
            print_note(text)
        else:
            LOGGER.info(as_shown(text))

    def end(self) -> None:
        """Leave the line in place as it is, so that what is printed next begins on its own line."""
        global _standing
        with _screen:
            if self.line:
                _write(self.eraser() if self._fleeting else "\n")
                self.line, _standing = "", None

    def eraser(self) -> str:
        """The control sequence that clears the line in place, which a narrow terminal shows in several rows."""
        if not self.line:
            return ""
        rows = -(-len(self.line) // terminal_columns())
        return (f"\x1b[{rows - 1}A" if rows > 1 else "") + "\r\x1b[J"


class Progress(ProgressLine):
    """The progress of a training: step, loss and accuracies, tokens/s, ETA.

    steps_per_epoch: of a training that is measured after each epoch, which is then told by its epochs. start_line: what
    is said before the first step.
    """

    def __init__(self, title: str, *, shown: bool = True) -> None:
        super().__init__(title, shown=shown)
        self.steps_per_epoch: int | None = None
        self.start_line = ""
        self._evaluated, self._unchanged = "", ""  # the figures that stand there, and since when they are the same
        self._tokens_per_second = self._seconds_per_step = 0.0
        self._steps_seen = 0

    def start(self) -> None:
        """Say that there is a step to take, and what it is a step of."""
        if self.start_line:
            self.say(f"{self.title}: {self.start_line}")
            self.wait(f"{self.title}  taking the first step …")

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
            shown = {
                name: f"{short} {figures[name]:{form}}" for name, (short, form) in FIGURES.items() if name in figures
            }
            shown["tokens_per_second"] = f"{self._tokens_per_second:,.0f} tokens/s"
            left = f"ETA {duration((steps - step) * self._seconds_per_step)}"
            for least in ("", *LEAST_FIGURES):
                shown.pop(least, "")
                line = "  ".join([f"{self.title}  step {step:,}/{steps:,}", *shown.values(), left])
                if not self._in_place or len(line) < terminal_columns():
                    break
            self.draw(line, last)

    def within(self, step: int, steps: int, share: float, tokens: int, seconds: float) -> None:
        """Show that a share of step `step`, counted from 1, is done; a log has that of the first step only.

        tokens: of that share. seconds: that it took.
        """
        first = not self._steps_seen
        if self.is_due() and (first or (self._in_place and self._seconds_per_step >= SILENT_SECONDS)):
            of_step = seconds / share if first else self._seconds_per_step
            left = f"ETA {duration((steps - step + 1 - share) * of_step)}"
            speed = f"{tokens / max(seconds, 1e-9):,.0f} tokens/s"
            self.draw(f"{self.title}  step {step:,}/{steps:,}, {share:.0%} of it done  {speed}  {left}")

    def evaluated(self, step: int, figures: Mapping[str, float]) -> None:
        """Show held-out figures on a line that stays; the same figures again are told in one line for all times."""
        values = "  ".join(f"{name.removeprefix('eval_')} {value:.3f}" for name, value in figures.items())
        at = f"epoch {-(-step // self.steps_per_epoch):,}" if self.steps_per_epoch else f"step {step:,}"
        if values == self._evaluated:
            self._unchanged = at
            return
        self._say_unchanged()
        self._evaluated = values
        self.say(f"{self.title}  {at}  held-out: {values}")

    def end(self) -> None:
        """As `ProgressLine.end`, with what was not told of the evaluations."""
        self._say_unchanged()
        super().end()

    def _say_unchanged(self) -> None:
        if self._unchanged:
            self.say(f"{self.title}  up to {self._unchanged}  held-out: unchanged")
            self._unchanged = ""


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
    """What `ByteProgress` shows of a corpus; `text.corpus_report.CorpusReport` has it."""

    @property
    def documents(self) -> int: ...

    @property
    def bytes_read(self) -> int: ...


class ByteProgress(ProgressLine):
    """The progress of reading a corpus: documents, tokens, MB/s and ETA.

    total: bytes of all files on disk. passes: how often they are read.
    """

    def __init__(self, title: str, total: int, passes: int = 1, *, shown: bool = True) -> None:
        super().__init__(title, shown=shown)
        self.total, self.passes = total, passes

    def update(self, counts: DocumentCounts, tokens: int | None = None, begun: int = 0) -> None:
        """Show how much is done. tokens: how many it became; None where it is not cut into tokens yet. begun: passes
        that were made before this one."""
        if not self.is_due():
            return
        done = max(1, begun * self.total + counts.bytes_read)
        left = self.elapsed * max(0, self.passes * self.total - done) / done
        counted = f"{counts.documents:,} documents" + (f", {tokens:,} tokens" if tokens is not None else "")
        self.draw(f"{self.title}  {counted}  {done / 1e6 / self.elapsed:.1f} MB/s  ETA {duration(left)}")


def duration(seconds: float) -> str:
    """`0:05`, `12:30`, `1:02:03`."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
