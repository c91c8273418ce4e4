"""What is counted of a server, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from bothways.serve.inquiries import Times

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Upper ends in seconds: from a short text in a small model to a long generation.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
SEQUENCES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class _Queues(Collector):
    def __init__(self, lengths: Callable[[], Mapping[str, int]]) -> None:
        self._lengths = lengths

    def collect(self) -> Iterator[GaugeMetricFamily]:
        gauge = GaugeMetricFamily("bothways_queue_length", "Requests that wait for the engine.", labels=["model"])
        for model, length in self._lengths().items():
            gauge.add_metric([model], length)
        yield gauge


class Metrics:
    """The counters and histograms of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry, both = self._registry, ["model", "verb"]
        self._replies = Counter(
            "bothways_replies", "Replies by route and status.", ["route", "status"], registry=registry
        )
        self._errors = Counter("bothways_errors", "Errors by kind.", ["kind"], registry=registry)
        self._requests = Counter("bothways_requests", "Questions to models.", both, registry=registry)
        self._seconds = {
            stage: Histogram(f"bothways_{stage}_seconds", text, both, buckets=SECONDS, registry=registry)
            for stage, text in {
                "queue": "Seconds that requests wait for the engine.",
                "tokenise": "Seconds of tokenising and decoding.",
                "infer": "Seconds of the batches that a request is in.",
                "total": "Seconds from the accepted request to its answer.",
            }.items()
        }
        self._children: dict[tuple[str, str], tuple[Any, ...]] = {}
        self._tokens = Counter("bothways_tokens", "Tokens that were read or made.", ["model"], registry=registry)
        self._batch_tokens = Histogram(
            "bothways_batch_tokens", "Tokens of a batch.", ["model"], buckets=TOKENS, registry=registry
        )
        self._batch_sequences = Histogram(
            "bothways_batch_sequences", "Sequences of a batch.", ["model"], buckets=SEQUENCES, registry=registry
        )

    def _of(self, model: str, verb: str) -> tuple[Any, ...]:
        """The counter and histograms of a model's verb, kept, as finding them by their labels takes longest."""
        if (model, verb) not in self._children:
            both = [self._requests, *self._seconds.values()]
            self._children[model, verb] = tuple(metric.labels(model, verb) for metric in both)
        return self._children[model, verb]

    def watch_queues(self, lengths: Callable[[], Mapping[str, int]]) -> None:
        """lengths: how many requests wait, by model."""
        self._registry.register(_Queues(lengths))

    def answered(self, model: str, verb: str, times: Times, total: float) -> None:
        """A question was answered, or failed, after `total` seconds."""
        requests, queue, tokenise, infer, whole = self._of(model, verb)
        requests.inc()
        queue.observe(times.queue)
        tokenise.observe(times.tokenise)
        infer.observe(times.infer)
        whole.observe(total)

    def ran(self, model: str, tokens: int, sequences: int) -> None:
        """A batch was computed."""
        self._tokens.labels(model).inc(tokens)
        self._batch_tokens.labels(model).observe(tokens)
        self._batch_sequences.labels(model).observe(sequences)

    def replied(self, route: str, status: int) -> None:
        """route: its template, never a path that a client chose."""
        self._replies.labels(route, str(status)).inc()

    def failed(self, kind: str) -> None:
        """kind: of `failures.STATUS`."""
        self._errors.labels(kind).inc()

    def text(self) -> bytes:
        """All figures, as Prometheus reads them."""
        return generate_latest(self._registry)
