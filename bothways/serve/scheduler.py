"""The scheduler: a queue for each model, budgeted in tokens, and the thread that runs what is in them.

A batch is chosen when the engine is free, so that it is as full as it can be and nobody in it has left; cutting one out
of a queue and packing it takes a hundredth of the time in which it is computed. Models share the engine by tokens: next
is the one that has had the fewest since it began to wait. Within a model a request that does not fit goes on behind the
others.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from bothways.errors import UserError
from bothways.hardware import is_out_of_memory
from bothways.inference.engine import Forward
from bothways.serve.failures import RequestError
from bothways.serve.inquiries import Alone, Inquiry

MIN_BUDGET = 16  # tokens of a batch, below which running out of memory is not the budget's fault

# Tokens that a batch of fewer counts as, by which models take turns: every weight is read for it all the same. A step
# of generation takes half as long for one text as for sixteen (measured with `mini` in float32).
MIN_COST = 8


@dataclass(frozen=True)
class Share:
    """The part of an inquiry that is in a batch: its sequences `start` to `end`."""

    inquiry: Inquiry
    start: int
    end: int


@dataclass
class ModelQueue:
    """The inquiries that wait for a model. served: tokens that the model has had, by which models take turns."""

    inquiries: deque[Inquiry] = field(default_factory=deque)
    served: float = 0.0

    def take(self, budget: int) -> list[Share]:
        """The next batch: shares of inquiries with one key, of at most so many tokens or of one sequence; or one
        inquiry that has the engine alone. Dead inquiries are left out."""
        batch: list[Share] = []
        passed: list[Inquiry] = []
        unfinished: list[Inquiry] = []
        room = budget
        while self.inquiries and room > 0:
            inquiry = self.inquiries.popleft()
            if inquiry.is_dead:
                continue
            waiting = inquiry.waiting
            if isinstance(waiting, Alone):
                if not batch:
                    batch = [Share(inquiry, 0, 1)]
                    break
                passed.append(inquiry)
                break  # what stands behind it waits for it
            assert waiting is not None
            if batch and waiting.key != _key(batch):
                passed.append(inquiry)
                continue
            share = _fitting(inquiry, waiting, room, bool(batch))
            if share.end == share.start:
                passed.append(inquiry)
                break
            batch.append(share)
            tokens = _tokens(share)
            room -= tokens
            inquiry.size -= tokens
            inquiry.done = share.end
            if inquiry.done < len(waiting.encoded):
                unfinished.append(inquiry)
        self.inquiries.extendleft(reversed(passed))
        self.inquiries.extend(unfinished)
        return batch


def _key(batch: Sequence[Share]) -> object:
    waiting = batch[0].inquiry.waiting
    assert isinstance(waiting, Forward)
    return waiting.key


def _fitting(inquiry: Inquiry, waiting: Forward, room: int, beside: bool) -> Share:
    """As many of an inquiry's sequences as there is room for; at least one where nothing stands beside it."""
    end = inquiry.done
    for sequence in waiting.encoded[inquiry.done :]:
        room -= len(sequence.input_ids)
        if room < 0 and (beside or end > inquiry.done):
            break
        end += 1
    return Share(inquiry, inquiry.done, end)


def _tokens(share: Share) -> int:
    waiting = share.inquiry.waiting
    if isinstance(waiting, Alone):
        return waiting.tokens
    assert waiting is not None
    return sum(len(sequence.input_ids) for sequence in waiting.encoded[share.start : share.end])


class Listener(Protocol):
    """Who is told what the engine's thread does; all are called in it."""

    def done(self, inquiry: Inquiry) -> None:
        """The results of all that an inquiry waited for are there."""

    def ran(self, model: str, tokens: int, sequences: int, seconds: float) -> None:
        """A batch was computed."""

    def shrunk(self, budget: int) -> None:
        """Memory ran out, and batches have so many tokens from here on."""

    def crashed(self, error: BaseException) -> None:
        """The thread has ended by an error of its own."""


class Scheduler:
    """The queues of some models and their engine thread. budget: tokens of a batch. at_once: how many batches the
    engine runs faster together than one by one."""

    def __init__(self, models: Sequence[str], budget: int, at_once: int, listener: Listener) -> None:
        self.queues = {name: ModelQueue() for name in models}
        self.budget = budget
        self._at_once, self._listener = at_once, listener
        self._something = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="bothways-engine", daemon=True)
        self._thread.start()

    def add(self, inquiry: Inquiry) -> None:
        """Let an inquiry wait for what it wants of the engine."""
        with self._something:
            queue = self.queues[inquiry.model]
            if not queue.inquiries:  # what a model did not ask for while others worked is not owed to it
                waiting = [other.served for other in self.queues.values() if other.inquiries]
                queue.served = max([queue.served, *([min(waiting)] if waiting else [])])
            queue.inquiries.append(inquiry)
            self._something.notify()

    def lengths(self) -> dict[str, int]:
        """The inquiries that wait, by model."""
        return {name: len(queue.inquiries) for name, queue in self.queues.items()}

    def waiting_tokens(self) -> int:
        """The tokens that wait."""
        with self._something:
            return sum(inquiry.size for queue in self.queues.values() for inquiry in queue.inquiries)

    def stop(self) -> None:
        """End the thread; what waits is not answered."""
        with self._something:
            self._stopped = True
            self._something.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _work(self) -> None:
        try:
            while self._run_next():
                pass
        except BaseException as error:
            self._listener.crashed(error)

    def _run_next(self) -> bool:
        """Wait for the next batch and run it; False at the end. Nothing keeps the batch, which may hold caches of keys
        and values, while the next one is waited for."""
        batch = self._next()
        if batch is None:
            return False
        now = time.monotonic()
        for share in batch:
            share.inquiry.times.queue += now - share.inquiry.since
        self._run(batch)
        return True

    def _next(self) -> list[Share] | None:
        """The next batch, waited for; None at the end."""
        with self._something:
            while True:
                if self._stopped:
                    return None
                waiting = [queue for queue in self.queues.values() if queue.inquiries]
                if not waiting:
                    self._something.wait()
                    continue
                queue = min(waiting, key=lambda queue: queue.served)
                batch = queue.take(self._room(queue, len(waiting)))
                if batch:
                    queue.served += max(MIN_COST, sum(map(_tokens, batch)))
                    return batch

    def _room(self, queue: ModelQueue, waiting: int) -> int:
        """The tokens of the next batch: of one model's long queue so many that cores need not share a batch, as of a
        table; what is answered together then would have waited for as long."""
        many = self._at_once * self.budget
        return many if waiting == 1 and sum(inquiry.size for inquiry in queue.inquiries) >= many else self.budget

    def _run(self, batch: Sequence[Share]) -> None:
        """Run a batch. One that fails is run again request by request, so that only the one at fault fails; one that
        takes more memory than there is, in halves."""
        began = time.monotonic()
        try:
            self._run_once(batch)
        except Exception as error:
            self._run_in_parts(batch, error)
            return
        seconds = time.monotonic() - began
        sequences = sum(share.end - share.start for share in batch)
        self._listener.ran(batch[0].inquiry.model, sum(map(_tokens, batch)), sequences, seconds)
        for share in batch:
            inquiry = share.inquiry
            inquiry.times.infer += seconds
            inquiry.tokens += _tokens(share)
            inquiry.since = time.monotonic()
            if share.end == len(inquiry.results):
                self._listener.done(inquiry)

    def _run_in_parts(self, batch: Sequence[Share], error: Exception) -> None:
        out_of_memory = _is_out_of_memory(error)
        if out_of_memory and self.budget > MIN_BUDGET:
            self.budget = max(MIN_BUDGET, self.budget // 2)
            self._listener.shrunk(self.budget)
        share = batch[0]
        if len(batch) > 1:
            for share in batch:
                self._run([share])
        elif out_of_memory and share.end - share.start > 1:
            middle = (share.start + share.end) // 2
            self._run([replace(share, end=middle)])
            self._run([replace(share, start=middle)])
        elif isinstance(error, UserError) and isinstance(share.inquiry.waiting, Forward):
            share.inquiry.fail(RequestError("failed", str(error)))  # the model is damaged, the request is not at fault
        else:
            share.inquiry.fail(error)

    def _run_once(self, batch: Sequence[Share]) -> None:
        first = batch[0].inquiry.waiting
        if isinstance(first, Alone):
            batch[0].inquiry.results[0] = batch[0].inquiry.run_alone(first)
            return
        assert first is not None
        forwards = [share.inquiry.waiting for share in batch]
        encoded = [
            sequence
            for share, forward in zip(batch, forwards, strict=True)
            for sequence in forward.encoded[share.start : share.end]  # type: ignore[union-attr]
        ]
        results = replace(first, encoded=encoded).run()
        begin = 0
        for share in batch:
            number = share.end - share.start
            share.inquiry.results[share.start : share.end] = results[begin : begin + number]
            begin += number


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, also where the engine has made a sentence of it."""
    causes = [cause for cause in (error, error.__cause__) if cause is not None]
    return any(isinstance(cause, MemoryError) or is_out_of_memory(cause) for cause in causes)
