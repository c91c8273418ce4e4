"""What surrounds every task: the best checkpoint, early stopping, freezing, presets, bad rows, reports."""

from __future__ import annotations

import csv
import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

import bothways as bw
from bothways.checkpoint.hugging_face import load_checkpoint
from bothways.errors import UserError
from bothways.pages.report import finetuning_report
from bothways.tasks.metrics import classification_figures
from bothways.train.finetune import FinetuneOptions, finetune
from bothways.train.run import RunDirectory
from tests.train.test_loop import StopAfter, state_of

ROWS = [
    {"text": f"the {size} {noun} {verb}.", "label": "thing" if noun == "house" else "animal"}
    for size, noun, verb in product(("big", "small", "old", "new"), ("dog", "cat", "house"), ("runs", "sleeps", "eats"))
]
NOISE = [{**row, "label": ("animal", "thing")[n % 2]} for n, row in enumerate(ROWS)]
FAST = {"batch_size": 8, "lr": 2e-3, "dropout": 0.0, "precision": "float32"}


def evaluations(run: Path) -> list[float]:
    return [line["eval_accuracy"] for line in RunDirectory(run).metrics() if "eval_accuracy" in line]


def test_the_best_checkpoint_is_kept_and_bad_luck_ends_the_run(pretrained: Path, tmp_path: Path) -> None:
    """Trained on noise, held-out accuracy goes up and down."""
    options = FinetuneOptions(epochs=30, patience=4, **FAST)  # type: ignore[arg-type]
    result = finetune("classify", pretrained, NOISE, ROWS, tmp_path / "run", options)
    accuracies = evaluations(tmp_path / "run")
    assert len(accuracies) < 30
    best = len(accuracies) - 1 - accuracies[::-1].index(max(accuracies))
    assert len(accuracies) == best + 1 + 4
    assert result.metrics is not None
    assert result.metrics["accuracy"] == max(accuracies)
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["accuracy"] == max(accuracies)
    predicted = [one.label for one in bw.load(tmp_path / "run").classify([row["text"] for row in ROWS])]
    truth = [row["label"] for row in ROWS]
    assert classification_figures(truth, predicted, ["animal", "thing"])["accuracy"] == max(accuracies)
    assert not (tmp_path / "run" / "best").exists()
    again = finetune("classify", pretrained, NOISE, ROWS, tmp_path / "run", options)  # finished: nothing is trained
    assert again.training.steps == result.training.steps
    assert again.metrics == result.metrics


def test_a_stopped_run_keeps_the_same_best(pretrained: Path, tmp_path: Path) -> None:
    options = FinetuneOptions(epochs=6, log_every=3, **FAST)  # type: ignore[arg-type]
    whole = finetune("classify", pretrained, NOISE, ROWS, tmp_path / "a", options)
    for after in (7, 12, 18, -1):
        finetune("classify", pretrained, NOISE, ROWS, tmp_path / "b", options, progress=StopAfter(after))
    assert state_of(tmp_path / "a") == state_of(tmp_path / "b")
    ours, theirs = (load_checkpoint(tmp_path / name / "model").model.state_dict() for name in "ab")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert whole.metrics == json.loads((tmp_path / "b" / "evaluation.json").read_text())


def test_a_finished_run_that_goes_on_and_improves(pretrained: Path, tmp_path: Path) -> None:
    """Ended early, then asked for more patience: the better model takes the place of the one that is there."""
    options = FinetuneOptions(epochs=12, patience=1, **FAST)  # type: ignore[arg-type]
    first = finetune("classify", pretrained, NOISE, ROWS, tmp_path / "run", options)
    more = FinetuneOptions(epochs=12, patience=12, **FAST)  # type: ignore[arg-type]
    second = finetune("classify", pretrained, NOISE, ROWS, tmp_path / "run", more)
    assert second.training.steps > first.training.steps
    assert second.metrics is not None
    assert second.metrics["accuracy"] == max(evaluations(tmp_path / "run"))
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["accuracy"] == second.metrics["accuracy"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "checkpoints",
        "evaluation.json",
        "metrics.jsonl",
        "model",
        "predictions.csv",
        "run.json",
        "start",
    ]
    with pytest.raises(UserError, match="otherwise: eval was rows in memory, not given now; overwrite=True"):
        finetune("classify", pretrained, NOISE, None, tmp_path / "run", FinetuneOptions(epochs=12, **FAST))  # type: ignore[arg-type]


def test_frozen_layers_stay_as_they_were(pretrained: Path, tmp_path: Path) -> None:
    before = load_checkpoint(pretrained).model.state_dict()
    for freeze, kept in ((1, ("embeddings", "layers.0")), (-1, ("embeddings", "layers.0", "layers.1"))):
        out = tmp_path / f"freeze{freeze}"
        finetune("classify", pretrained, ROWS, None, out, FinetuneOptions(epochs=1, freeze_layers=freeze, **FAST))  # type: ignore[arg-type]
        after = load_checkpoint(out / "model").model.state_dict()
        for name, tensor in after.items():
            if name.startswith("encoder."):
                assert torch.equal(tensor, before[name]) == any(f"encoder.{part}" in name for part in kept), name
    with pytest.raises(UserError, match="freeze_layers=9: expected 0 to 2"):
        finetune("classify", pretrained, ROWS, None, tmp_path / "r", FinetuneOptions(freeze_layers=9))
    pairs = [{"text": "a", "pair": "b"}, {"text": "c", "pair": "d"}]
    with pytest.raises(UserError, match="freeze_layers=-1: nothing is left to train for similar"):
        finetune("similar", pretrained, pairs, None, tmp_path / "r", FinetuneOptions(freeze_layers=-1))


def test_presets(pretrained: Path, tmp_path: Path) -> None:
    quick = finetune("classify", pretrained, ROWS, None, tmp_path / "q", FinetuneOptions(preset="quick"))
    assert quick.training.steps == 2  # 36 rows by 32
    assert bw.load(tmp_path / "q").sequence_length == 128
    overruled = FinetuneOptions(preset="quick", epochs=2, sequence_length=16)
    assert finetune("classify", pretrained, ROWS, None, tmp_path / "o", overruled).training.steps == 4
    for wrong, message in (
        ({"patience": -1}, "patience=-1"),
        ({"patience": 2}, "patience=2: needs eval"),
        ({"preset": "fast"}, "preset is 'fast', expected 'quick' or 'standard'"),
        ({"precision": "fp16"}, "precision is 'fp16'"),
        ({"lr": "1e-4"}, "lr is '1e-4', expected float"),
        ({"batch_size": None}, "batch_size is None, expected int"),
    ):
        with pytest.raises(UserError, match=message):
            finetune("classify", pretrained, ROWS, None, tmp_path / "r", FinetuneOptions(**wrong))  # type: ignore[arg-type]


def test_bad_rows_are_named_or_left_out_and_counted(pretrained: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [*ROWS, {"text": " ", "label": "thing"}, {"text": "a dog", "label": None}]
    said: list[str] = []

    class Listening(StopAfter):
        def say(self, line: str) -> None:
            said.append(line)

    with pytest.raises(UserError, match=r"row 37: column 'text' is empty \(skip_bad=True leaves such rows out\)"):
        finetune("classify", pretrained, rows, None, tmp_path / "r")
    options = FinetuneOptions(steps=1, skip_bad=True)
    unseen = [*ROWS, {"text": "x", "label": "gas"}]
    result = finetune("classify", pretrained, rows, unseen, tmp_path / "r", options, progress=Listening(-1))
    assert result.skipped == 3
    assert any(line.startswith("2 of 38 rows left out: row 37: column 'text' is empty; row 38") for line in said)
    assert any("1 of 37 rows left out: row 37: label 'gas' was never seen" in line for line in said)
    with pytest.raises(UserError, match="none of 1 rows can be used"):
        finetune("classify", pretrained, rows[-1:], None, tmp_path / "s", options)


def test_predictions_and_report(pretrained: Path, tmp_path: Path) -> None:
    rows = [*ROWS[:-1], {"text": '=SUM("a"), <script>alert(1)</script>\nthe dog', "label": "thing"}]
    options = FinetuneOptions(epochs=2, **FAST)  # type: ignore[arg-type]
    result = finetune("classify", pretrained, rows, rows, tmp_path / "run", options)
    with (tmp_path / "run" / "predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    assert [line["text"] for line in table] == [row["text"] for row in rows]
    assert {line["right"] for line in table} <= {"True", "False"}
    assert result.evaluation is not None
    report = finetuning_report(RunDirectory(tmp_path / "run").metrics(), result.evaluation, "A <title>")
    report.write(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "expected calibration error" in page
    assert "truth ↓ predicted →" in page
    assert "<script>" not in page
    confident = [line for line in result.evaluation.table() if not line["right"]]
    assert ("most confident mistakes" in page) == bool(confident)


def test_class_weights_are_those_of_torch(pretrained: Path, tmp_path: Path) -> None:
    from bothways.data.tables import read_rows
    from bothways.tasks.classify import ClassifyOptions, ClassifyTask

    rows = read_rows(ROWS)
    balanced = ClassifyTask(ClassifyOptions(class_weights=("balanced",))).fitted(rows)
    assert balanced.weights == pytest.approx((36 / (2 * 24), 36 / (2 * 12)))
    weighted = ClassifyTask(ClassifyOptions(class_weights=("thing=3",))).fitted(rows)
    scores, labels = torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 1])
    expected = torch.nn.functional.cross_entropy(scores, labels, weight=torch.tensor([1.0, 3.0]))
    targets = {"labels": labels}
    ours = weighted.sums(scores, targets)["loss"] / weighted.counts(targets)["loss"]
    assert ours.item() == pytest.approx(expected.item(), rel=1e-6)
    alone = finetune(
        "classify", pretrained, ROWS, None, tmp_path / "w", FinetuneOptions(steps=1), class_weights="balanced"
    )
    assert alone.training.steps == 1
    with pytest.raises(UserError, match="problem_type is None"):
        finetune("classify", pretrained, ROWS, None, tmp_path / "r", problem_type=None)
    with pytest.raises(UserError, match="column 'label' is a list; problem_type='multi_label_classification'"):
        finetune("classify", pretrained, [{"text": "x", "label": ["a"]}], None, tmp_path / "r")
    with pytest.raises(UserError, match="class_weights='gas=2': expected `balanced` or LABEL=WEIGHT"):
        finetune("classify", pretrained, ROWS, None, tmp_path / "r", class_weights=("gas=2",))


def test_several_labels_and_their_thresholds(pretrained: Path, tmp_path: Path) -> None:
    from sklearn.metrics import f1_score

    rows = [
        {"text": row["text"], "label": [word for word in ("big", "dog", "runs") if word in row["text"]]} for row in ROWS
    ]
    options = FinetuneOptions(epochs=50, **FAST)  # type: ignore[arg-type]
    kind = {"problem_type": "multi_label_classification"}
    result = finetune("classify", pretrained, rows, rows, tmp_path / "run", options, **kind)
    assert result.metrics is not None
    assert result.metrics["micro_f1"] > 0.9
    model = bw.load(tmp_path / "run")
    predicted = model.classify([row["text"] for row in rows])
    truth = [[name in row["label"] for name in model.labels] for row in rows]
    guess = [[name in one.labels for name in model.labels] for one in predicted]
    assert result.metrics["micro_f1"] == pytest.approx(f1_score(truth, guess, average="micro", zero_division=0))
    assert result.metrics["macro_f1"] == pytest.approx(f1_score(truth, guess, average="macro", zero_division=0))
    thresholds = model.checkpoint.metadata["thresholds"]
    assert len(thresholds) == 3
    for n in range(3):  # none on a grid is better
        scores = [list(one.scores.values())[n] for one in predicted]
        grid = [f1_score([t[n] for t in truth], [s >= c / 50 for s in scores], zero_division=0) for c in range(51)]
        ours = f1_score([t[n] for t in truth], [s >= thresholds[n] for s in scores], zero_division=0)
        assert ours >= max(grid) - 1e-9
    from transformers import BertForSequenceClassification

    theirs = BertForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    assert theirs.config.problem_type == "multi_label_classification"
    with pytest.raises(UserError, match="several labels are a list, or a text with commas"):
        finetune("classify", pretrained, [{"text": "x", "label": 5}], None, tmp_path / "r", **kind)


def test_regression(pretrained: Path, tmp_path: Path) -> None:
    rows = [{"text": row["text"], "label": 1.5 if row["label"] == "thing" else -0.5} for row in ROWS]
    options = FinetuneOptions(epochs=25, **FAST)  # type: ignore[arg-type]
    result = finetune("classify", pretrained, rows, rows, tmp_path / "run", options, problem_type="regression")
    assert result.metrics is not None
    assert result.metrics["mean_absolute_error"] < 0.3
    model = bw.load(tmp_path / "run")
    assert isinstance(model.classify("the big house runs."), bw.Regression)
    from transformers import AutoTokenizer, BertForSequenceClassification

    theirs = BertForSequenceClassification.from_pretrained(tmp_path / "run" / "model").eval()
    assert theirs.config.num_labels == 1
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    with torch.inference_mode():
        logits = theirs(**tokenizer("the big house runs.", return_tensors="pt")).logits
    assert model.classify("the big house runs.").value == pytest.approx(logits.item(), abs=1e-5)
    for bad in ("x", None, float("nan"), True):
        with pytest.raises(UserError, match="not a number"):
            finetune(
                "classify", pretrained, [{"text": "x", "label": bad}], None, tmp_path / "r", problem_type="regression"
            )
