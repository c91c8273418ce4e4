"""The classifiers that BERT must beat: the majority class, a perceptron on bags of words (Rosenblatt 1958), and the
average of word2vec vectors (Mikolov et al. 2013) under a logistic regression.
"""

from __future__ import annotations

import pickle
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from bothways.baselines.results import ClassifierResult, TrainingCost
from bothways.errors import UserError, install_command
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
    raise UserError(f"the baselines need scikit-learn and gensim ({error}): {install_command('baselines')}") from error


# The runs that a latency is the median of, after runs that do not count. Chosen by hand.
LATENCY_RUNS, WARM_UP_RUNS = 30, 3


class Word2VecAverage(TransformerMixin, BaseEstimator):
    """A transformer of scikit-learn: texts → the mean of their words' vectors, float32 `[texts, vector_size]`.

    The vectors are trained by word2vec's skip-gram on the texts that `fit` is given; a text without any of their words
    is zeros.
    """

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


def baseline_classifiers() -> dict[str, Any]:
    """Untrained estimators of scikit-learn by name, simplest first."""
    return {
        "majority class": DummyClassifier(strategy="most_frequent"),
        "perceptron on bag of words": make_pipeline(CountVectorizer(token_pattern=r"\w+"), Perceptron(random_state=0)),
        "word2vec average + logistic regression": make_pipeline(
            Word2VecAverage(), StandardScaler(), LogisticRegression(max_iter=2000)
        ),
    }


def compare_classifiers(
    texts: Sequence[str],
    gold: Sequence[str],
    eval_texts: Sequence[str],
    eval_gold: Sequence[str],
    labels: Sequence[str],
) -> Iterator[ClassifierResult]:
    """Train each baseline on texts with their gold labels, and measure it on the evaluation's.

    labels: all that there are. Raises UserError where a baseline cannot learn from such texts.
    """
    for name, estimator in baseline_classifiers().items():
        began = time.perf_counter()
        try:
            estimator.fit(list(texts), list(gold))
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{name}: cannot learn from these texts: {str(error).splitlines()[0]}") from error
        seconds = time.perf_counter() - began
        size = len(pickle.dumps(estimator))  # counted, and never read

        def predict(texts: Sequence[str], estimator: Any = estimator) -> list[str]:
            predicted: list[str] = estimator.predict(list(texts)).tolist()
            return predicted

        yield measure_classifier(name, predict, eval_texts, eval_gold, labels, TrainingCost(seconds, size))


def measure_classifier(
    name: str,
    predict: Callable[[Sequence[Any]], Sequence[str]],
    texts: Sequence[Any],
    gold: Sequence[str],
    labels: Sequence[str],
    cost: TrainingCost,
) -> ClassifierResult:
    """Measure a trained classifier on held-out texts. predict: texts → a label for each. labels: all there are."""
    figures = classification_figures(gold, predict(texts), labels)
    latency = single_text_latency(predict, texts)
    return ClassifierResult(name, figures["accuracy"], figures["macro_f1"], cost.seconds, cost.size_bytes, latency)


def single_text_latency(predict: Callable[[Sequence[Any]], Any], texts: Sequence[Any]) -> float:
    """Milliseconds that a single text takes: the median over `LATENCY_RUNS` of the texts."""
    taken = []
    for number in range(WARM_UP_RUNS + LATENCY_RUNS):
        began = time.perf_counter()
        predict([texts[number % len(texts)]])
        taken.append(time.perf_counter() - began)
    return float(np.median(taken[WARM_UP_RUNS:]) * 1000)
