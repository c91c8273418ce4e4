"""What a classifier must beat: the majority class, and a perceptron on bags of words (Rosenblatt 1958)."""

from __future__ import annotations

from collections.abc import Sequence

from bothways.errors import UserError


def baseline_accuracies(
    texts: Sequence[str], labels: Sequence[str], eval_texts: Sequence[str], eval_labels: Sequence[str]
) -> dict[str, float]:
    """Train each baseline on the first two, and give its accuracy (0 to 1) on the last two.

    Raises UserError where scikit-learn, the `baselines` extra, is not installed.
    """
    try:
        from sklearn.dummy import DummyClassifier
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import Perceptron
        from sklearn.pipeline import make_pipeline
    except ImportError as error:
        raise UserError("the baselines need scikit-learn: pip install 'bothways[baselines]'") from error
    baselines = {
        "majority class": DummyClassifier(strategy="most_frequent"),
        "perceptron on bag of words": Perceptron(random_state=0),
    }
    accuracies = {}
    for name, estimator in baselines.items():
        pipeline = make_pipeline(CountVectorizer(), estimator).fit(texts, labels)
        accuracies[name] = float(pipeline.score(eval_texts, eval_labels))
    return accuracies
