"""An inquiry: one request's question on its way through pool and engine.

The question is a generator (`inference/engine.py: Question`). Each of its steps, tokenising first and decoding last,
runs in the pool; what it yields, a `Forward` or a call that has the engine `Alone`, waits in the scheduler's queue.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

from bothways.errors import TruncationWarning, collected_warnings
from bothways.inference.engine import Forward, truncated_rows
from bothways.serve.failures import RequestError


@dataclass(frozen=True)
class Alone:
    """A call that the engine runs by itself. tokens: that it reads or makes, about; models share the engine by them."""

    call: Callable[[], Any]
    tokens: int


ServedQuestion = Generator["Forward | Alone", Any, Any]


@dataclass
class Times:
    """Seconds that an inquiry has spent: waiting for the engine, tokenising and decoding, in the engine."""

    queue: float = 0.0
    tokenise: float = 0.0
    infer: float = 0.0


@dataclass(eq=False)
class Inquiry:
    """One request's question. deadline: by `time.monotonic`. truncate: whether texts may be cut. future: its result.

    waiting: what the engine has to run next, of which `done` sequences are handed out, `size` tokens are not, and
    `results` are there. tokens: that the engine has run.
    """

    model: str
    verb: str
    question: ServedQuestion
    deadline: float
    truncate: bool = False
    future: Future[Any] = field(default_factory=Future)
    warnings: list[tuple[type[Warning], str]] = field(default_factory=list)
    times: Times = field(default_factory=Times)
    waiting: Forward | Alone | None = None
    results: list[Any] = field(default_factory=list)
    done: int = 0
    size: int = 0
    tokens: int = 0
    since: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_dead(self) -> bool:
        """Whether nobody waits for it any more: cancelled, failed or expired."""
        if self.future.done():
            return True
        if time.monotonic() < self.deadline:
            return False
        self.fail(RequestError("deadline", "the deadline passed before there was an answer"))
        return True

    def advance(self) -> bool:
        """Run the question up to what it next wants of the engine, in the calling thread; False where it has ended."""
        if self.is_dead:
            self._close()
            return False
        began = time.monotonic()
        first, results = self.waiting is None, self.results
        alone = isinstance(self.waiting, Alone)
        try:
            with collected_warnings(self.warnings):
                sent = None if first else results[0] if alone else results
                self.waiting = self.question.send(sent)
                while isinstance(self.waiting, Forward) and not self.waiting.encoded:
                    self.waiting = self.question.send([])
            self._refuse_truncation(first)
        except StopIteration as end:
            self.times.tokenise += time.monotonic() - began
            self._settle(functools.partial(self.future.set_result, end.value))
            return False
        except Exception as error:
            self.fail(error)
            self._close()
            return False
        waiting = self.waiting
        if isinstance(waiting, Alone):
            self.results, self.size = [None], waiting.tokens
        else:
            self.results = [None] * len(waiting.encoded)
            self.size = sum(len(sequence.input_ids) for sequence in waiting.encoded)
        self.done, self.since = 0, time.monotonic()
        self.times.tokenise += self.since - began
        return True

    def run_alone(self, alone: Alone) -> Any:
        """What the call gives, in the engine's thread."""
        with collected_warnings(self.warnings):
            return alone.call()

    def fail(self, error: BaseException) -> None:
        """Answer with an error, unless it is answered."""
        self._settle(lambda: self.future.set_exception(error))

    def _settle(self, settle: Callable[[], None]) -> None:
        with self._lock, contextlib.suppress(InvalidStateError):  # a client that leaves cancels it at any time
            if not self.future.done():
                settle()

    def _close(self) -> None:
        """End the question's generator, which may hold a cache of keys and values."""
        self.question.close()

    def _refuse_truncation(self, first: bool) -> None:
        """Raises RequestError where a text would be cut, and the request did not ask for that."""
        if self.truncate:
            return
        cure = "; truncate: true reads what fits"
        if first:
            for category, message in self.warnings:
                if issubclass(category, TruncationWarning):
                    raise RequestError("truncated", message + cure, "truncate")
        if not isinstance(self.waiting, Forward) or not truncated_rows(self.waiting.encoded):
            return
        number, cut = next((s.row + 1, s) for s in self.waiting.encoded if s.truncated)
        room = len(cut.input_ids)
        message = f"text {number} is {room + cut.truncated:,} tokens long, and the model reads {room:,}"
        raise RequestError("truncated", message + cure, "truncate")
