"""scikit-learn's own rules for estimators, its tools around ours, and keeping one without pickle."""

from __future__ import annotations

import pickle
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from transformers import BertForSequenceClassification

from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint
from bothways.errors import UserError
from bothways.model.families import head_builder
from bothways.sklearn import BertClassifier, BertEmbedder, BertRegressor, BertTagger
from tests.helpers import tiny_config, tiny_tokenizer

TEXTS = [
    f"the {size} {noun} {verb}." for size in ("big", "old") for noun in ("dog", "house") for verb in ("runs", "eats")
]
LABELS = np.array([1 if "house" in text else 2 for text in TEXTS])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("sklearn") / "base"
    save_checkpoint(Checkpoint(new_model(tiny_config(), head_builder("pretraining"), seed=1), tiny_tokenizer()), path)
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


def test_frames_and_columns_as_x(model: str) -> None:
    frame = pd.DataFrame({"text": TEXTS, "other": TEXTS[::-1], "n": range(len(TEXTS))})
    embedder = BertEmbedder(model).fit(frame[["text"]])
    expected = embedder.transform(TEXTS)
    arrow = pa.table({"text": TEXTS})
    columns = (frame[["text"]], frame[["text"]].to_numpy(), [[text] for text in TEXTS], frame["text"])
    for one_column in (*columns, arrow, arrow["text"]):
        assert np.array_equal(embedder.transform(one_column), expected)
    columns = ColumnTransformer([("bert", BertEmbedder(model), ["text"])]).fit_transform(frame)
    assert np.array_equal(columns, expected)
    pairs = classifier(model, epochs=1).fit(frame[["text", "other"]], LABELS)
    listed = list(zip(TEXTS, TEXTS[::-1], strict=True))
    assert np.array_equal(pairs.predict_proba(frame[["text", "other"]]), pairs.predict_proba(listed))
    with pytest.raises(UserError, match=r"X: a table with the columns text, other, n; give that of the texts"):
        embedder.transform(frame)
    with pytest.raises(UserError, match="X: expected a list of texts, found dict"):
        embedder.transform({"text": TEXTS})
    with pytest.raises(UserError, match=r"X\[1\]: expected a text"):
        embedder.transform(pd.DataFrame({"text": ["a", None]}))


@pytest.mark.parametrize(
    "labels",
    [
        ["a", None, "b", "a"],
        ["a", float("nan"), "b", "a"],
        [1.0, float("nan"), 2.0, 1.0],
        pd.Series([1, pd.NA, 2, 1], dtype="Int64"),
        pd.Series(["a", None, "b", "a"], dtype="category"),
        np.array([["a"], [None], ["b"], ["a"]], dtype=object),
        pd.DataFrame({"y": [1, None, 2, 1]}),
    ],
)
def test_a_missing_label_is_named(model: str, labels: object) -> None:
    with pytest.raises(UserError, match=r"^y\[1\]: no label$"):
        BertClassifier(model, epochs=1).fit(TEXTS[:4], labels)  # type: ignore[arg-type]
    if not isinstance(labels, list) or "a" not in labels:
        with pytest.raises(UserError, match=r"^y\[[01]\]: (no number|'a' is no number)$"):
            BertRegressor(model, epochs=1).fit(TEXTS[:4], labels)  # type: ignore[arg-type]


def test_labels_and_numbers_in_a_column(model: str) -> None:
    column = LABELS.reshape(-1, 1)
    expected = classifier(model, epochs=1).fit(TEXTS, LABELS)
    for y in (column, column.tolist(), pd.DataFrame({"y": LABELS}), pd.Series(LABELS, dtype="Int64")):
        fitted = classifier(model, epochs=1).fit(TEXTS, y)
        assert fitted.classes_.tolist() == [1, 2]
        assert np.array_equal(fitted.predict_proba(TEXTS), expected.predict_proba(TEXTS))
    regressor = BertRegressor(model, epochs=1).fit(TEXTS, column.astype(float))
    assert (regressor.mean_, regressor.predict(TEXTS).shape) == (1.5, (8,))
    for y, message in (
        ([1, 2, "a", 1], r"y\[2\]: labels are texts or numbers, not both"),
        (np.eye(4), r"y\[0\]: expected one label, found 4"),
        (None, "y: expected labels, one a text, found NoneType"),
    ):
        with pytest.raises(UserError, match=message):
            BertClassifier(model, epochs=1).fit(TEXTS[:4], y)  # type: ignore[arg-type]
    for value in ("x", np.inf, 1j):
        with pytest.raises(UserError, match=r"y\[1\]: .* is no number"):
            BertRegressor(model, epochs=1).fit(TEXTS[:2], [1.0, value])  # type: ignore[list-item]


def test_what_has_predicted_is_pickled_and_copied(model: str, tmp_path: Path) -> None:
    pipeline = make_pipeline(BertEmbedder(model), LogisticRegression(C=100.0)).fit(TEXTS, LABELS)
    expected = pipeline.predict_proba(TEXTS)
    joblib.dump(pipeline, tmp_path / "pipeline.joblib")
    assert np.array_equal(joblib.load(tmp_path / "pipeline.joblib").predict_proba(TEXTS), expected)
    estimators = cross_validate(classifier(model, epochs=1), TEXTS, LABELS, cv=2, return_estimator=True)["estimator"]
    again = pickle.loads(pickle.dumps(estimators))
    assert [one.predict_proba(TEXTS).tolist() for one in again] == [
        one.predict_proba(TEXTS).tolist() for one in estimators
    ]
