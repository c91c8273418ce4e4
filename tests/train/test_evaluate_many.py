"""Many rows of many labels: measured and predicted some rows at a time, with the figures of all at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import bothways as bw
from bothways.data.tables import read_rows
from bothways.inference import engine
from bothways.tasks.base import Task
from bothways.train.evaluate import Evaluation, evaluate_rows
from tests.helpers import WORDS, Run

LABELS = [f"c{n}" for n in range(120)]
QUICK: dict[str, Any] = {"steps": 2, "batch_size": 16, "precision": "float32"}
SEVERAL = {"problem_type": "multi_label_classification"}


def rows_of(several: bool) -> list[dict[str, Any]]:
    labels = [[label, LABELS[(7 * n) % 120]] if several else label for n, label in enumerate(LABELS)]
    return [{"text": f"{WORDS[n % 22]} {WORDS[n // 22]}", "label": label} for n, label in enumerate(labels)]


def few_scores_in_memory(patch: pytest.MonkeyPatch) -> None:
    """At most 240 scores, two rows', are kept, and some rows are run at a time."""
    for name, value in (("MAX_KEPT_SCORES", 240), ("MAX_CHUNK_SCORES", 1), ("MIN_CHUNK_ROWS", 50)):
        patch.setattr(engine, name, value)


def evaluated(model: Path, tune: bool) -> tuple[Task, Evaluation]:
    predictor = bw.load(model, "cpu", "float32")
    task, rows = predictor.task(), read_rows(rows_of("several" in model.name))
    return task, evaluate_rows(predictor.model, task, rows, predictor.encode_rows(task, rows), tune=tune)


@pytest.fixture(params=["single", "several"])
def run(request: pytest.FixtureRequest, pretrained: Path, tmp_path: Path) -> Path:
    rows, out = rows_of(request.param == "several"), tmp_path / request.param
    options = SEVERAL if request.param == "several" else {}
    bw.finetune("classify", pretrained, rows, rows, out, bw.FinetuneOptions(**QUICK), **options)
    return out


def test_figures_and_tables_are_those_of_all_rows_at_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole = evaluated(run, tune=False)
    few_scores_in_memory(monkeypatch)
    _, condensed = evaluated(run, tune=False)
    assert condensed.metrics == whole.metrics
    for line, expected in zip(condensed.table(), whole.table(), strict=True):
        assert line == {**expected, **{k: pytest.approx(v, abs=1e-6) for k, v in expected.items() if type(v) is float}}
    assert all(len(found.scores) == 120 for found in whole.predictions)
    if run.name == "single":
        assert all(len(found.scores) == 1 for found in condensed.predictions)


def test_thresholds_are_tuned_on_the_rows_that_fit(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    untuned, whole = evaluated(run, tune=True)
    few_scores_in_memory(monkeypatch)
    _, some = evaluated(run, tune=True)
    if run.name == "single":
        assert (some.task, some.metrics) == (untuned, whole.metrics)
        return
    assert some.metrics["rows_thresholds_were_tuned_on"] == 2
    assert "rows_thresholds_were_tuned_on" not in whole.metrics
    tuned = bw.load(run, "cpu", "float32").task()
    rows = read_rows(rows_of(True))
    chosen = [rows[0], rows[60]]  # two of 120, evenly spaced
    predictions = bw.load(run, "cpu", "float32").predict(chosen)
    expected = tuned.with_tuned_thresholds(predictions, chosen)
    # by rounding: products of two rows and of 120 add up in another order
    assert some.task.thresholds == pytest.approx(expected.thresholds, abs=1e-6)
    assert replace(some.task, thresholds=expected.thresholds) == expected


def test_large_tables_and_predictions_in_chunks(
    run: Path, tmp_path: Path, bothways: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "table.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows_of("several" in run.name)))

    def commands(folder: Path) -> list[str]:
        folder.mkdir()
        assert bothways("predict", run, table, "--out", folder / "p.jsonl")[0] == 0
        assert bothways("classify", run, "--in", table, "--out", folder / "b.parquet")[0] == 0
        return [
            (folder / "p.jsonl").read_text(),
            str(pq.read_table(folder / "b.parquet").column("predicted").to_pylist()),
        ]

    whole = commands(tmp_path / "whole")
    few_scores_in_memory(monkeypatch)
    parts = commands(tmp_path / "parts")
    assert parts[1] == whole[1]
    for line, expected in zip(parts[0].splitlines(), whole[0].splitlines(), strict=True):
        assert json.loads(line)["predicted"] == json.loads(expected)["predicted"]


def test_a_run_of_many_labels_has_no_matrix_and_says_so(run: Path, bothways: Run, tmp_path: Path) -> None:
    kept = json.loads((run / "evaluation.json").read_text())
    assert "confusion" not in kept
    assert len(kept["labels"]) == 120
    if run.name == "several":  # rows of several labels have no matrix that could be left out
        assert "confusion_left_out" not in kept
        return
    assert kept["confusion_left_out"] == "120 labels; the matrix is made of up to 100"
    table = tmp_path / "table.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows_of(False)))
    _, shown, _ = bothways("evaluate", run, table)
    assert "the 100 commonest of 120 labels; --json has all" in shown
    assert "no confusion matrix: 120 labels" in shown


def test_vectors_of_zeros_and_ones_are_learnt_in_their_order(pretrained: Path, tmp_path: Path, bothways: Run) -> None:
    table = tmp_path / "hot.csv"
    lines = [f'the {noun} runs,"[{int(noun == "dog")}, 1, {int(noun != "dog")}]"' for noun in ("dog", "cat", "bird")]
    table.write_text("text,label\n" + "\n".join(lines) + "\n")
    asked = ("finetune", "classify", "--model", pretrained, "--train", table, "--eval", table, "--steps", 1)
    several = ("--problem-type", "multi_label_classification")
    code, _, errors = bothways(*asked, *several, "--out", tmp_path / "refused")
    assert (code, "hot.csv:2: column 'label' is '[1, 0, 1]'" in errors) == (2, False)
    assert "hot.csv:2: column 'label' is '[1, 1, 0]', a vector of 0 and 1 without names; --label-names" in errors
    names = ("--label-names", "zebra", "always", "other")
    assert bothways(*asked, *several, *names, "--out", tmp_path / "run")[0] == 0
    assert bw.load(tmp_path / "run").labels == ["zebra", "always", "other"]
    figures = json.loads((tmp_path / "run" / "evaluation.json").read_text())["labels"]
    assert [figures[name]["support"] for name in names[1:]] == [1, 3, 2]
    assert bothways("evaluate", tmp_path / "run", table)[0] == 0
