"""Labels as people bring them, and figures as scikit-learn has them where classes are absent or many."""

from __future__ import annotations

import copy
import json
import pickle
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, classification_report, f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from bothways.data.tables import Row, read_rows
from bothways.errors import UserError
from bothways.tasks.classifications import Classification, MultiClassification
from bothways.tasks.classify import ClassifyTask
from bothways.tasks.classify_options import ClassifyOptions
from bothways.tasks.classify_several import MultiLabelTask
from bothways.tasks.label_scores import LabelScores, scores_by_label
from bothways.tasks.metrics import MAX_CONFUSION_LABELS, classification_figures
from bothways.tasks.tag import Tagging, TagTask

LABELS = ("a", "b", "c", "d", "e")
SEVERAL = ClassifyOptions(problem_type="multi_label_classification")
label_pairs = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=12)
label_sets = st.lists(st.tuples(*[st.sets(st.sampled_from(LABELS), max_size=3)] * 2), min_size=1, max_size=8)


@given(label_pairs)
@settings(max_examples=60, deadline=None)
def test_figures_are_scikit_learns_where_classes_are_absent(pairs: list[tuple[str, str]]) -> None:
    gold, guess = map(list, zip(*pairs, strict=True))
    figures = classification_figures(gold, guess, LABELS)
    assert figures["macro_f1"] == pytest.approx(f1_score(gold, guess, average="macro", zero_division=0))
    report = classification_report(gold, guess, output_dict=True, zero_division=0)
    for label in {*gold, *guess}:
        assert list(figures["labels"][label].values()) == pytest.approx(list(report[label].values()))
    tagging = [Tagging(guess, [1.0] * len(guess), [], [])]
    rows = read_rows([{"words": ["x"] * len(gold), "labels": gold}])
    tagged = TagTask(labels=LABELS).metrics(tagging, rows)
    assert tagged["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])


@given(label_sets)
@settings(max_examples=60, deadline=None)
def test_figures_of_several_labels_are_scikit_learns(pairs: list[tuple[set[str], set[str]]]) -> None:
    gold, guess = map(list, zip(*pairs, strict=True))
    rows = read_rows([{"text": "x", "label": sorted(labels)} for labels in gold])
    task = MultiLabelTask(SEVERAL, LABELS)
    figures = task.metrics([MultiClassification(sorted(labels), {}) for labels in guess], rows)
    binarizer = MultiLabelBinarizer(classes=LABELS).fit(gold)
    truth, given_labels = binarizer.transform(gold), binarizer.transform(guess)
    assert figures["exact_match"] == pytest.approx(accuracy_score(truth, given_labels))
    assert figures["micro_f1"] == pytest.approx(f1_score(truth, given_labels, average="micro", zero_division=0))
    occurring = (truth | given_labels).any(0)
    if occurring.any():
        by_label = f1_score(truth, given_labels, average=None, zero_division=0)
        assert figures["macro_f1"] == pytest.approx(by_label[occurring].mean())
        macro = f1_score(truth, given_labels, average="macro", zero_division=np.nan)
        assert figures["macro_f1"] == pytest.approx(macro)


def test_perfect_predictions_on_part_of_the_classes_score_one() -> None:
    assert classification_figures(["a", "a", "b"], ["a", "a", "b"], ["a", "b", "c"])["macro_f1"] == 1.0


def several(values: Sequence[Any], names: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    task = MultiLabelTask(ClassifyOptions(problem_type="multi_label_classification", label_names=names))
    return [task.gold(row) for row in read_rows([{"text": "x", "label": value} for value in values])]


def test_several_labels_in_whatever_lists_come_in() -> None:
    same = [["b", "a"], ("b", "a"), np.array(["b", "a"]), "b, a", "['b', 'a']", '["b", "a"]', '["b", "a", "b"]']
    assert several(same) == [("b", "a")] * len(same)
    assert several([{"b", "a"}, frozenset("ab")]) == [("a", "b")] * 2
    assert several([[], "", "[]", "[1, 12]", [3.0, True]]) == [(), (), (), ("1", "12"), ("3", "True")]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 0, 0], "row 1: column 'label' is '.1, 0, 0.', a vector of 0 and 1 without names; label_names"),
        ([1.0, 0.0, 0.0], "a vector of 0 and 1"),
        ([True, False, False], "a vector of 0 and 1"),
        (np.array([0, 0]), "a vector of 0 and 1"),
        ("[1, 0, 1]", "a vector of 0 and 1"),
        ("[1 0 1]", "a vector of 0 and 1"),
        ("[1. 0. 1.]", "a vector of 0 and 1"),
        ("1,0,1", "a vector of 0 and 1"),
        ("['a' 'b']", "looks like a list and is none"),
        ("[a, b]", "looks like a list and is none"),
        ("[" * 5000 + "]" * 5000, "looks like a list and is none"),
        (["a", None], "has no label"),
        (["a", float("nan")], "has no label"),
        ([["a"]], "not a label"),
        (None, "several labels are a list"),
        (float("nan"), "several labels are a list"),
        (b"ab", "several labels are a list"),
        ({"a": 1}, "several labels are a list"),
        (np.array([["a"]]), "several labels are a list"),
    ],
)
def test_what_is_no_list_of_labels_is_refused(value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        several([value])


def test_vectors_of_zeros_and_ones_get_names() -> None:
    vectors = [[1, 0, 1], (1.0, 0.0, 1.0), np.array([True, False, True]), "[1, 0, 1]", "1 0 1", "[1. 0. 1.]", "1,0,1"]
    assert several(vectors, ("net", "bill", "box")) == [("net", "box")] * len(vectors)
    for bad in ([1, 0], [1, 2, 0], ["net"], "net, box", None, [1, None, 0]):
        with pytest.raises(UserError, match="row 1: column 'label' is"):
            several([bad], ("net", "bill", "box"))
    rows = read_rows([{"text": "x", "label": [0, 1]}, {"text": "y", "label": [1, 0]}])
    with pytest.raises(UserError, match="every row has the two labels 0 and 1"):
        MultiLabelTask(SEVERAL).fitted(rows)
    named = ClassifyOptions(problem_type="multi_label_classification", label_names=("z", "a"))
    fitted = MultiLabelTask(named).fitted(rows)
    assert fitted.labels == ("z", "a")  # the order of the vectors, as whatever made them has it
    assert ClassifyTask.from_json(json.loads(json.dumps(fitted.to_json()))).gold(rows[0]) == ("a",)
    with pytest.raises(UserError, match="label_names: for vectors"):
        ClassifyOptions(label_names=("a", "b"))
    with pytest.raises(UserError, match="label_names: each place"):
        ClassifyOptions(problem_type="multi_label_classification", label_names=("a", "a"))


def test_a_list_is_no_label() -> None:
    for value in (["a"], np.array([0, 1]), {"a"}, "[1, 0, 0]", "1 0 1", "['a', 'b']"):
        with pytest.raises(
            UserError, match=r"row 1: column 'label' is a list.*multi_label_classification. learns several"
        ):
            ClassifyTask().check(read_rows([{"text": "x", "label": value}])[0])
    for value in ("[CLS]", "a, b", "101", "[urgent] bug"):
        ClassifyTask().check(read_rows([{"text": "x", "label": value}])[0])


def test_missing_labels_whole_numbers_and_booleans() -> None:
    import pandas as pd

    for missing in (None, float("nan"), np.float32("nan"), "", " ", pd.NA, pd.NaT):
        with pytest.raises(UserError, match="row 1: column 'label' has no label"):
            ClassifyTask().check(read_rows([{"text": "x", "label": missing}])[0])
    whole = read_rows([{"text": "x", "label": value} for value in (1, 1.0, np.int64(1), np.float32(1), "1", " 1 ")])
    assert {ClassifyTask().gold(row) for row in whole} == {"1"}
    booleans = read_rows([{"text": "x", "label": value} for value in (True, np.bool_(True), "True")])
    assert {ClassifyTask().gold(row) for row in booleans} == {"True"}


def test_measurements_are_no_classes() -> None:
    for numbers in (np.linspace(0, 1, 12), [f"{n / 7:.4f}" for n in range(12)]):
        with pytest.raises(UserError, match=r"row 1: the labels are 12 different numbers.*problem_type='regression'"):
            ClassifyTask().fitted(read_rows([{"text": "x", "label": number} for number in numbers]))
    for classes in (range(12), [1.5, 2.0, 2.5, 3.0] * 3, [f"v1.{n}" for n in range(12)]):
        ClassifyTask().fitted(read_rows([{"text": "x", "label": label} for label in classes]))


def test_an_unknown_label_among_thousands_is_one_short_line() -> None:
    task = ClassifyTask(labels=tuple(f"c{n}" for n in range(5000)))
    with pytest.raises(UserError, match=r"'c5000' was never seen.*known: c0, c1, .* and 4,980 more") as error:
        task.check(read_rows([{"text": "x", "label": "c5000"}])[0])
    assert len(str(error.value)) < 300


def test_scores_of_many_labels_behave_as_a_dictionary() -> None:
    numbers = {f"c{n}": n for n in range(2000)}
    probabilities = np.random.default_rng(0).dirichlet(np.ones(2000))
    scores = scores_by_label(numbers, probabilities)
    expected = dict(zip(numbers, probabilities.astype(np.float32).tolist(), strict=True))
    assert isinstance(scores, LabelScores)
    assert scores == expected
    assert expected == scores
    assert (list(scores), len(scores), scores["c7"], "c2000" in scores) == (list(numbers), 2000, expected["c7"], False)
    assert repr(scores) == repr(expected)
    assert json.loads(json.dumps(asdict(Classification("c1", scores)))) == {"label": "c1", "scores": expected}
    assert pickle.loads(pickle.dumps(scores)) == copy.deepcopy(scores) == expected
    many = pickle.dumps([scores_by_label(numbers, probabilities) for _ in range(20)])
    assert len(many) < 20 * 2000 * 4 + 50_000  # 4 bytes a label, the labels once
    assert type(scores_by_label({"a": 0, "b": 1}, np.array([0.25, 0.75]))) is dict


def test_no_matrix_of_many_labels() -> None:
    labels = [f"c{n}" for n in range(MAX_CONFUSION_LABELS + 1)]
    figures = classification_figures(["c1", "c1", "c2", "c3"], ["c2", "c2", "c2", "c1"], labels)
    assert "confusion" not in figures
    assert figures["confusion_left_out"] == "101 labels; the matrix is made of up to 100"
    assert figures["most_confused"] == [
        {"truth": "c1", "predicted": "c2", "rows": 2}, {"truth": "c3", "predicted": "c1", "rows": 1},
    ]  # fmt: skip
    assert json.loads(json.dumps(figures)) == figures
    assert len(classification_figures(["c1"], ["c2"], labels[:-1])["confusion"]) == 100


@pytest.mark.parametrize(
    ("labels", "advice"),
    [
        (
            [f"{n % 39 / 10:.1f}" for n in range(150)],
            "the labels are numbers: 39 classes for 150 rows; problem_type='regr",
        ),
        (
            [f"5,{n % 9}" for n in range(150)],
            "numbers with decimal commas: 9 classes for 150 rows; problem_type='regression' .* once they have points",
        ),
        (["1,2", "1", "2"] * 3, "1 of 3 classes are combinations of labels"),
        ([str(n % 50) for n in range(150)], "the labels are numbers: 50 classes for 150 rows"),
        ([str(n % 77) for n in range(7700)], None),  # Banking77's classes by number
        (["1", "2", "3", "4", "5"] * 9, None),
        (["0.5", "1.0", "1.5"] * 9, None),
        (
            ["pests", "question", "pests,question"] * 3,
            "1 of 3 classes are combinations of labels, 'pests,question' say",
        ),
        (["a|b", "b|c", "c|a"], "multi_label_classification learns each label by itself, with commas for the |"),
        (["a; b", "b", "a"], "'a; b' say; .* with commas for the ;"),
        (["yes, please", "no, thanks"], None),
        (["yes, please", "please"], None),
        (["x"] * 3, None),
    ],
)
def test_labels_that_are_hardly_classes_get_a_line_of_advice(labels: list[str], advice: str | None) -> None:
    rows = [Row({"text": "a", "label": label}, f"row {n}") for n, label in enumerate(labels)]
    found = ClassifyTask().advice(rows)
    assert (found is None) == (advice is None)
    assert found is None or re.search(str(advice), found)
    assert MultiLabelTask(options=SEVERAL).advice(rows) is None


def test_advice_stops_nothing() -> None:
    rows = [Row({"text": "a", "label": f"{n % 39 / 10:.1f}"}, f"row {n}") for n in range(150)]
    assert len(ClassifyTask().fitted(rows).labels) == 39
