"""scikit-learn's own rules for estimators, its tools around ours, and keeping one without pickle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from transformers import BertForSequenceClassification

from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint
from bothways.errors import UserError
from bothways.model.heads import PretrainingHead
from bothways.sklearn import BertClassifier, BertEmbedder, BertRegressor, BertTagger
from tests.helpers import tiny_config, tiny_tokenizer

TEXTS = [
    f"the {size} {noun} {verb}." for size in ("big", "old") for noun in ("dog", "house") for verb in ("runs", "eats")
]
LABELS = np.array([1 if "house" in text else 2 for text in TEXTS])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("sklearn") / "base"
    save_checkpoint(Checkpoint(new_model(tiny_config(), PretrainingHead, seed=1), tiny_tokenizer()), path)
    return str(path)


def classifier(model: str, **more: object) -> BertClassifier:
    return BertClassifier(model, **{"epochs": 20, "batch_size": 4, "lr": 2e-3, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [BertClassifier, BertRegressor, BertTagger, BertEmbedder])
def test_scikit_learns_checks(kind: type, model: str) -> None:
    """Those that estimators on text can be given; the numeric ones do not apply, as scikit-learn says itself."""
    estimator = kind(model)
    check_estimator(estimator, on_fail="raise", on_skip=None)
    assert clone(estimator).get_params() == estimator.get_params()
    assert "model=" in repr(estimator)


def test_a_classifier_fits_predicts_and_is_kept(model: str, tmp_path: Path) -> None:
    fitted = classifier(model).fit(pd.Series(TEXTS), LABELS)
    assert fitted.classes_.tolist() == [1, 2]
    assert fitted.predict(np.array(TEXTS)).tolist() == LABELS.tolist()
    assert fitted.score(TEXTS, LABELS) == 1.0
    probabilities = fitted.predict_proba(TEXTS)
    assert probabilities.shape == (8, 2)
    assert np.allclose(probabilities.sum(1), 1)
    fitted.save(tmp_path / "kept")
    fitted.save(tmp_path / "kept")
    again = BertClassifier.load(tmp_path / "kept")
    assert np.array_equal(again.predict_proba(TEXTS), probabilities)
    assert again.predict(TEXTS).dtype == LABELS.dtype
    assert again.get_params() == fitted.get_params()
    theirs = BertForSequenceClassification.from_pretrained(tmp_path / "kept" / "model")
    assert theirs.config.id2label == {0: "1", 1: "2"}
    with pytest.raises(UserError, match="holds a BertClassifier, not a BertRegressor"):
        BertRegressor.load(tmp_path / "kept")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="holds something else"):
        fitted.save(tmp_path / "other")


def test_scikit_learns_tools(model: str) -> None:
    scores = cross_val_score(classifier(model, epochs=12), TEXTS, LABELS, cv=2)
    assert scores.shape == (2,)
    search = GridSearchCV(classifier(model), {"epochs": [1, 12]}, cv=2).fit(TEXTS, LABELS)
    assert set(search.best_params_) == {"epochs"}
    pipeline = make_pipeline(BertEmbedder(model), LogisticRegression(C=100.0)).fit(TEXTS, LABELS)
    assert pipeline.score(TEXTS, LABELS) == 1.0
    assert len(pipeline[0].get_feature_names_out()) == 32


def test_any_labels_and_numpy_parameters(model: str) -> None:
    odd = np.array([" a" if one == 1 else "a" for one in LABELS])
    fitted = classifier(model, epochs=np.int64(1), batch_size=np.int64(4), seed=np.int64(3)).fit(TEXTS, odd)
    assert set(fitted.predict(TEXTS)) <= {" a", "a"}
    GridSearchCV(classifier(model, epochs=1), {"batch_size": np.array([4, 8])}, cv=2).fit(TEXTS, LABELS)


def test_regression_in_any_unit(model: str) -> None:
    numbers = np.where(LABELS == 1, 250_000.0, 90_000.0)
    fitted = BertRegressor(model, epochs=30, batch_size=4, lr=2e-3, dropout=0.0).fit(TEXTS, numbers)
    assert fitted.score(TEXTS, numbers) > 0.9


def test_pairs_and_words(model: str, tmp_path: Path) -> None:
    pairs = [(text, other) for text in TEXTS[:4] for other in TEXTS[4:]]
    same = [("house" in a) == ("house" in b) for a, b in pairs]
    fitted = classifier(model, epochs=1).fit(pairs, same)
    assert fitted.predict(pairs).dtype == bool
    words = [text.rstrip(".").split() for text in TEXTS]
    labels = [["B-x" if word in ("dog", "house") else "O" for word in one] for one in words]
    tagger = BertTagger(model, epochs=20, batch_size=4, lr=2e-3).fit(words, labels)
    assert tagger.predict(words) == labels
    assert tagger.score(words, labels) == 1.0
    tagger.save(tmp_path / "tagger")
    assert BertTagger.load(tmp_path / "tagger").predict(words) == labels


def test_refusals(model: str) -> None:
    with pytest.raises(UserError, match="2 texts, but 1 labels"):
        classifier(model).fit(["a", "b"], [1])
    with pytest.raises(UserError, match=r"X\[0\]: expected a text or a pair of texts"):
        classifier(model).fit(np.zeros((2, 3)), [1, 2])
    with pytest.raises(UserError, match="expected a list of texts, found str"):
        BertEmbedder(model).fit("a text")
    with pytest.raises(ValueError, match="not fitted yet"):
        classifier(model).predict(["a"])
    with pytest.raises(UserError, match="every row has the label '1'"):
        classifier(model).fit(["a", "b"], [1, 1])
