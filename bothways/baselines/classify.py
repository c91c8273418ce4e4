"""What a classifier must beat: the majority class, a perceptron on bags of words (Rosenblatt 1958), and the average of
word2vec vectors (Mikolov et al. 2013) under a logistic regression.
"""

from __future__ import annotations

import pickle
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bothways.errors import UserError
from bothways.tasks.metrics import classification_figures

try:
    from gensim.models import Word2Vec
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.dummy import DummyClassifier
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression, Perceptron
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
except ImportError as error:
    raise UserError(
        f"the baselines need scikit-learn and gensim ({error}): pip install 'bothways[baselines]'"
    ) from error


@dataclass(frozen=True)
class ClassifierResult:
    """What one classifier did: shares of the held-out rows (0 to 1), seconds of training, bytes of the model as it is
    kept, milliseconds for one text alone (median)."""

    name: str
    accuracy: float
    macro_f1: float
    train_seconds: float
    size_bytes: int
    latency_ms: float


class Word2VecAverage(TransformerMixin, BaseEstimator):
    """Texts as the mean of their words' vectors, which are learnt from the training texts alone."""

    def __init__(self, vector_size: int = 100, epochs: int = 30) -> None:
        self.vector_size = vector_size
        self.epochs = epochs

    def fit(self, X: Sequence[str], y: Any = None) -> Word2VecAverage:  # noqa: N803
        sentences = [_words(text) for text in X]
        # one worker: with several the result depends on their timing
        model = Word2Vec(
            sentences, vector_size=self.vector_size, epochs=self.epochs, min_count=1, sg=1, seed=0, workers=1
        )
        self.vectors_ = {word: model.wv[word] for word in model.wv.key_to_index}
        return self

    def transform(self, X: Iterable[str]) -> np.ndarray:  # noqa: N803
        nothing = np.zeros(self.vector_size, dtype=np.float32)
        known = [[self.vectors_[word] for word in _words(text) if word in self.vectors_] for text in X]
        return np.array([np.mean(vectors, axis=0) if vectors else nothing for vectors in known])


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def baselines() -> dict[str, Any]:
    """Estimators by name, simplest first."""
    return {
        "majority class": DummyClassifier(strategy="most_frequent"),
        "perceptron on bag of words": make_pipeline(CountVectorizer(token_pattern=r"\w+"), Perceptron(random_state=0)),
        "word2vec average + logistic regression": make_pipeline(
            Word2VecAverage(), StandardScaler(), LogisticRegression(max_iter=2000)
        ),
    }


def compare_baselines(
    texts: Sequence[str],
    labels: Sequence[str],
    eval_texts: Sequence[str],
    eval_labels: Sequence[str],
    known: Sequence[str],
) -> Iterator[ClassifierResult]:
    """Train each baseline on the first two and measure it on the next two; known: all labels there are.

    Raises UserError where one of them cannot learn from such texts.
    """
    for name, estimator in baselines().items():
        began = time.perf_counter()
        try:
            estimator.fit(list(texts), list(labels))
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{name}: cannot learn from these texts: {str(error).splitlines()[0]}") from error
        seconds = time.perf_counter() - began
        predicted = estimator.predict(list(eval_texts)).tolist()
        size = len(pickle.dumps(estimator))  # to be counted, never to be read
        latency = one_text_latency(lambda text, used=estimator: used.predict([text]), eval_texts)  # type: ignore[misc]
        yield contestant(name, predicted, eval_labels, known, seconds, size, latency)


def contestant(
    name: str,
    predicted: Sequence[str],
    truth: Sequence[str],
    known: Sequence[str],
    seconds: float,
    size: int,
    latency: float,
) -> ClassifierResult:
    """The line of a classifier that predicted this."""
    figures = classification_figures(truth, predicted, known)
    return ClassifierResult(name, figures["accuracy"], figures["macro_f1"], seconds, size, latency)


def one_text_latency(predict: Callable[[str], Any], texts: Sequence[str], times: int = 30) -> float:
    """Milliseconds that one text alone takes: the median of so many, after three that warm up."""
    taken = []
    for number in range(times + 3):
        began = time.perf_counter()
        predict(texts[number % len(texts)])
        taken.append(time.perf_counter() - began)
    return float(np.median(taken[3:]) * 1000)
