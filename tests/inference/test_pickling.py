"""A loaded model goes through pickle, deepcopy and joblib after it has answered, and answers the same."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pytest

import bothways as bw
from bothways.precision import PRECISIONS, InferencePrecision
from bothways.predictor import Predictor

TEXT = "the big [MASK] runs."


def through_joblib(predictor: Predictor, folder: Path) -> Predictor:
    joblib.dump(predictor, folder / "predictor.joblib")
    kept: Predictor = joblib.load(folder / "predictor.joblib")
    return kept


WAYS: dict[str, Callable[[Predictor, Path], Predictor]] = {
    "pickle": lambda predictor, folder: pickle.loads(pickle.dumps(predictor)),
    "deepcopy": lambda predictor, folder: copy.deepcopy(predictor),
    "copy": lambda predictor, folder: copy.copy(predictor),
    "joblib": through_joblib,
}


@pytest.mark.parametrize("precision", ["auto", *PRECISIONS])
def test_what_has_answered_is_pickled_and_answers_the_same(
    pretrained: Path, tmp_path: Path, precision: InferencePrecision
) -> None:
    model = bw.load(pretrained, "cpu", precision)
    expected = pickle.loads(pickle.dumps(model)).embed([TEXT])  # before anything is prepared
    assert np.array_equal(model.embed([TEXT]), expected)
    fills, score = model.fill(TEXT), model.score("the dog runs.")
    for name, way in WAYS.items():
        again = way(model, tmp_path)
        assert type(again) is Predictor, name
        assert again.precision == model.precision, name
        assert np.array_equal(again.embed([TEXT]), expected), name
        assert (again.fill(TEXT), again.score("the dog runs.")) == (fills, score), name
    assert copy.deepcopy(model).model is not model.model
