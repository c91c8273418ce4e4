"""How far a long job over many sequences is, on standard error."""

from __future__ import annotations

import sys
import time

from bothways.progress import duration


class Counting:
    """Called with how many are done: rate and ETA, in place on a terminal; silent for jobs of under two seconds.

    before: how many an earlier run had done.
    """

    def __init__(self, title: str, total: int | None = None, before: int = 0) -> None:
        self.title, self.total, self._before = title, total, before
        self._began = self._said = time.monotonic()
        self._every = 0.5 if sys.stderr.isatty() else 10.0

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        elapsed = now - self._began
        last = done == self.total and self._said > self._began
        if elapsed < 2 or (now - self._said < self._every and not last):
            return
        self._said = now
        rate = (done - self._before) / elapsed
        left = f"/{self.total:,}" if self.total else ""
        if self.total and rate:
            left += f"  ETA {duration((self.total - done) / rate)}"
        line = f"{self.title}  {done:,}{left}  {rate:,.0f}/s"
        in_place = sys.stderr.isatty()
        print(f"\r\x1b[K{line}" if in_place else line, end="" if in_place and not last else "\n", file=sys.stderr)
