"""What a comparison says of each model, for baselines and for BERT alike."""

from __future__ import annotations

from dataclasses import dataclass

from bothways.option_checks import rounded_repr

SAMPLE_TOKENS = 30  # of a language model's sample: a line or two
SUGGESTED_WORDS = 3  # as many as a phone's keyboard shows


@dataclass(frozen=True, repr=False)
class TrainingCost:
    """What a trained model took: seconds of training, bytes of the model as it is kept."""

    seconds: float
    size_bytes: int

    __repr__ = rounded_repr


@dataclass(frozen=True, repr=False)
class ClassifierResult:
    """What a classifier did on held-out rows.

    accuracy, macro_f1: 0 to 1. train_seconds: of training. size_bytes: of the model as it is kept. latency_ms: median
    milliseconds for a single text.
    """

    name: str
    accuracy: float
    macro_f1: float
    train_seconds: float
    size_bytes: int
    latency_ms: float

    __repr__ = rounded_repr


@dataclass(frozen=True, repr=False)
class LanguageModelResult:
    """What a language model did on held-out documents.

    perplexity: by token; None where the model's scores are no probabilities. train_seconds: of training. size_bytes: of
    the model as it is kept. tokens_per_second: of the text that the model generates. sample: how it goes on from the
    prompt. suggestions: the words it finds likeliest there.
    """

    name: str
    perplexity: float | None
    train_seconds: float
    size_bytes: int
    tokens_per_second: float
    sample: str
    suggestions: list[str]

    __repr__ = rounded_repr
