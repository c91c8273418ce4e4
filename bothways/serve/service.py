"""The service: permits, the pool in which questions are tokenised and decoded, and the scheduler behind it."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from bothways.errors import TruncationWarning, UnknownTokensWarning, UserError
from bothways.hardware import inference_batch_tokens
from bothways.inference.engine import Forward, batches_at_once
from bothways.predictor import Predictor
from bothways.serve.failures import RequestError
from bothways.serve.inquiries import Inquiry, ServedQuestion
from bothways.serve.limits import Limits
from bothways.serve.metrics import Metrics
from bothways.serve.models import ServedModel, model_for
from bothways.serve.scheduler import Scheduler

_LOGGER = logging.getLogger("bothways.serve")
POOL_THREADS = 2  # that tokenise and decode; the engine has the cores, and a thread more only waits for Python's lock
SMOOTHING = 0.1  # weight of the newest in the mean of seconds between two answers
MAX_RETRY_AFTER = 60  # seconds
WARNING_KINDS: Mapping[type[Warning], str] = {TruncationWarning: "truncated", UnknownTokensWarning: "unknown_tokens"}
State = Literal["loading", "ready", "draining", "stopped"]
Ask = Callable[[Predictor], ServedQuestion]


@dataclass(frozen=True)
class Wanted:
    """What a request wants: a model's answer to a question. name: of the model, None for the only one. gone: an
    awaitable that ends when the client has left. timeout: seconds."""

    name: str | None
    verb: str
    ask: Ask
    gone: Callable[[], Awaitable[None]]
    truncate: bool = False
    timeout: float | None = None


@dataclass(frozen=True)
class Answered:
    """A model's answer. warnings: `{kind, message}`, of kind truncated or unknown_tokens. truncated: whether a text was
    cut."""

    model: str
    result: Any
    warnings: list[dict[str, str]]
    truncated: bool
    tokens: int


class Service:
    """Several models, asked by many."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self.limits, self.metrics = limits, metrics
        self.models: dict[str, ServedModel] = {}
        self.state: State = "loading"
        self.in_flight = 0
        self.on_crash: Callable[[], None] = lambda: None
        self._interval = 0.0  # mean seconds between two answers while there is work
        self._last_answer = time.monotonic()
        self._inquiries: set[Inquiry] = set()
        self._pool = ThreadPoolExecutor(POOL_THREADS, "bothways-pool")
        self._scheduler: Scheduler | None = None

    def open(self, models: Mapping[str, ServedModel]) -> None:
        """Begin to answer with these models, which are loaded and warm."""
        self.models = dict(models)
        devices = {model.predictor.device for model in models.values()}
        budget = max(map(inference_batch_tokens, devices), default=1)
        self._scheduler = Scheduler(list(models), budget, max(map(batches_at_once, devices), default=1), self)
        self.metrics.watch_queues(self._scheduler.lengths)
        self.state = "ready"

    def close(self) -> None:
        """End the threads. What is not answered by now is not answered."""
        self.state = "stopped"
        for inquiry in list(self._inquiries):
            inquiry.fail(RequestError("stopped", "the server stops"))
        if self._scheduler is not None:
            self._scheduler.stop()
        self._pool.shutdown(cancel_futures=True)

    def require_ready(self) -> None:
        """Raises RequestError where nothing is accepted: still loading, draining or stopped."""
        if self.state != "ready":
            said = {"loading": "the models are being loaded", "draining": "the server is about to stop"}
            headers = {"retry-after": "1"} if self.state == "loading" else {"connection": "close"}
            raise RequestError(self.state, said.get(self.state, "the server has stopped"), headers=headers)

    def require_room(self) -> None:
        """Raises RequestError as `require_ready`, and where as many requests are answered or wait as are taken."""
        self.require_ready()
        if self.in_flight >= self.limits.max_requests:
            raise RequestError(
                "busy",
                f"{self.in_flight:,} requests are being answered or wait, which is all that is taken at a time",
                headers={"retry-after": str(self.retry_after())},
            )

    def retry_after(self) -> int:
        """Seconds after which what waits now is answered, at the measured rate."""
        return max(1, min(MAX_RETRY_AFTER, math.ceil(self.in_flight * self._interval)))

    def waiting_batches(self) -> float:
        """How many full batches the tokens that wait for the engine make."""
        return self._scheduler.waiting_tokens() / self._scheduler.budget if self._scheduler else 0.0

    async def answer(self, asked: Wanted) -> Answered:
        """The answer. Raises RequestError, also for what a model refuses (UserError), with its sentence."""
        self.require_room()
        model = model_for(self.models, asked.name, asked.verb)
        timeout = min(asked.timeout or self.limits.timeout, self.limits.timeout)
        try:
            question = asked.ask(model.predictor)
        except UserError as error:
            raise RequestError("invalid", str(error)) from error
        inquiry = Inquiry(model.name, asked.verb, question, time.monotonic() + timeout, asked.truncate)
        began = time.monotonic()
        self.in_flight += 1
        self._inquiries.add(inquiry)
        gone = asyncio.ensure_future(asked.gone())
        try:
            self._pool.submit(self._advance, inquiry)
            result = asyncio.wrap_future(inquiry.future)
            done, _ = await asyncio.wait({result, gone}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if result not in done:
                said = "the client has left" if gone in done else "there is no answer before the deadline"
                inquiry.fail(RequestError("deadline", said))
            return self._answered(inquiry, await result)
        except (RequestError, asyncio.CancelledError):
            raise
        except UserError as error:
            raise RequestError("invalid", str(error)) from error
        except Exception as error:
            _LOGGER.exception("a request failed", extra={"verb": inquiry.verb, "model": inquiry.model})
            raise RequestError("failed", f"{inquiry.verb} failed: {type(error).__name__}") from error
        finally:
            inquiry.fail(RequestError("deadline", "nobody waits for it"))
            gone.cancel()
            self._leave(inquiry, time.monotonic() - began)

    def _answered(self, inquiry: Inquiry, result: Any) -> Answered:
        truncated = any(issubclass(category, TruncationWarning) for category, _ in inquiry.warnings)
        said = [
            {"kind": WARNING_KINDS[category], "message": text} for category, text in dict.fromkeys(inquiry.warnings)
        ]
        return Answered(inquiry.model, result, said, truncated, inquiry.tokens)

    def _leave(self, inquiry: Inquiry, total: float) -> None:
        now = time.monotonic()
        interval = min(now - self._last_answer, total)  # without the time in which nothing was asked
        self._last_answer = now
        self._interval += SMOOTHING * (interval - self._interval)
        self.in_flight -= 1
        self._inquiries.discard(inquiry)
        self.metrics.answered(inquiry.model, inquiry.verb, inquiry.times, total)

    def _advance(self, inquiry: Inquiry) -> None:
        """A step of an inquiry's question, in the pool but for short ones, then it waits for the engine."""
        try:
            if inquiry.advance():
                assert self._scheduler is not None
                self._scheduler.add(inquiry)
        except BaseException as error:
            inquiry.fail(error)

    # what the scheduler tells, in its thread

    def done(self, inquiry: Inquiry) -> None:
        if isinstance(inquiry.waiting, Forward) and inquiry.waiting.goes_on_at_once:
            self._advance(inquiry)  # so that the next step has all texts that are in the making
            return
        try:
            self._pool.submit(self._advance, inquiry)
        except RuntimeError:  # the pool is closed
            inquiry.fail(RequestError("stopped", "the server stops"))

    def ran(self, model: str, tokens: int, sequences: int, seconds: float) -> None:
        self.metrics.ran(model, tokens, sequences)

    def shrunk(self, budget: int) -> None:
        _LOGGER.warning("memory ran out: batches have at most %d tokens from here on", budget)

    def crashed(self, error: BaseException) -> None:
        _LOGGER.critical("the engine has crashed: %s", type(error).__name__, exc_info=error)
        self.state = "stopped"
        for inquiry in list(self._inquiries):
            inquiry.fail(RequestError("stopped", "the engine has crashed; the server ends"))
        self.on_crash()
