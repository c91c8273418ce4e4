"""What surrounds every task: the best checkpoint, early stopping, freezing, presets, bad rows, reports."""

from __future__ import annotations

import csv
import json
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

import bothways as bw
from bothways.checkpoint.hugging_face import load_checkpoint
from bothways.errors import UserError
from bothways.pages.finetuning import finetuning_report
from bothways.tasks.metrics import classification_figures
from bothways.train.finetune import finetune, make_task, read_rows_to_learn
from bothways.train.finetune_options import FinetuneOptions
from bothways.train.run import RunDirectory
from tests.helpers import Run
from tests.train.running import StopAfter, state_of

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
    assert (result.best_epoch, result.epochs) == (best + 1, len(accuracies))
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


def test_the_model_says_how_it_was_trained(pretrained: Path, tmp_path: Path) -> None:
    """Rows, tables, machine, date, best epoch, and every option as it was in effect: nothing is None or `auto`."""
    table = tmp_path / "train.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    options = FinetuneOptions(batch_size=24, precision="float32", device="cpu", preset="quick")
    result = finetune("classify", pretrained, table, ROWS[:5], tmp_path / "run", options)
    told = load_checkpoint(tmp_path / "run").metadata["provenance"]
    assert (told["train"], told["train_rows"]) == (str(table), 36)
    assert (told["evaluation"], told["evaluation_rows"]) == ("rows given in Python", 5)
    assert told["best_epoch"] == result.best_epoch == 1
    assert told["torch"] == torch.__version__
    assert datetime.fromisoformat(told["date"]).tzinfo is not None
    assert " core" in told["machine"]
    effective = told["options"]
    assert {"steps": 2, "epochs": 1, "lr": 5e-5 * (768 / 32) ** 1.5, "batch_size": 24}.items() <= effective.items()
    assert effective["sequence_length"] == 128
    assert (effective["precision"], effective["device"]) == ("float32", "cpu")
    assert None not in effective.values()
    assert "tokens_per_step" not in effective


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
    from bothways.tasks.classify import ClassifyTask
    from bothways.tasks.classify_options import ClassifyOptions

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


def held_out_texts(run: Path, column: str = "text") -> list[str]:
    with (run / "predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        return [row[column] for row in csv.DictReader(file)]


def test_a_share_of_the_table_is_held_out_and_measured_on(pretrained: Path, tmp_path: Path) -> None:
    options = FinetuneOptions(steps=2, **FAST)  # type: ignore[arg-type]
    progress = StopAfter(-1)
    rows = [*ROWS, {"text": "Old house, the: EATS", "label": "thing"}]
    result = finetune("classify", pretrained, rows, 0.25, tmp_path / "a", options, progress=progress)
    assert result.evaluation is not None
    assert 8 <= len(result.evaluation.rows) <= 10
    assert {row.values["label"] for row in result.evaluation.rows} == {"animal", "thing"}
    assert held_out_texts(tmp_path / "a") == [row.values["text"] for row in result.evaluation.rows]
    twins = {"Old house, the: EATS", "the old house eats."}
    assert len(twins & {*held_out_texts(tmp_path / "a")}) in (0, 2)
    said = "\n".join(progress.said)
    assert f"held out {len(result.evaluation.rows)} of 37 rows to measure on, chosen by seed=0" in said
    assert "2 rows that share a text or nearly so are kept on one side" in said
    again = finetune("classify", pretrained, rows, 0.25, tmp_path / "a", options)
    assert again.metrics == result.metrics
    with pytest.raises(UserError, match=r"a holds a run .*: eval was 0\.25, now 0\.4"):
        finetune("classify", pretrained, rows, 0.4, tmp_path / "a", options)
    for share in (0.0, 1.0, 20, -0.5, float("nan")):
        with pytest.raises(UserError, match="expected a table, or a share of the training rows above 0 and below 1"):
            finetune("classify", pretrained, rows, share, tmp_path / "b", options)


SHARED = {
    "answer": [
        {"question": f"what is {letter}", "context": f"the dog sat {n // 3 * 'on '}the mat", "answers": ["dog"]}
        for n, letter in enumerate("abcdefghijkl")
    ],
    "tag": [{"words": ["the", "dog", *"abcdefghijkl"[n]], "labels": ["O", "B-x", "O"]} for n in range(12)],
    "similar": [
        {"text": f"the dog {letter}", "pair": "abcdef"[n // 2], "score": n} for n, letter in enumerate("abcdefghijkl")
    ],
    "choose": [{"text": f"the dog {letter}", "choices": ["sat", "ran"], "label": 0} for letter in "abcdefghijkl"],
    "instruct": [
        {"messages": [{"role": "user", "content": f"the {letter}"}, {"role": "assistant", "content": "dog"}]}
        for letter in "abcdefghijkl"
    ],
}


@pytest.mark.parametrize("name", SHARED)
def test_every_task_can_hold_rows_out(name: str) -> None:
    read = read_rows_to_learn(SHARED[name], 0.25, make_task(name, {}), FinetuneOptions(), lambda line: None)
    train, held_out = ([row.values for row in part.rows] for part in read)
    assert len(held_out) in (2, 3, 4)
    assert len(train) + len(held_out) == 12
    column = {"answer": "context", "similar": "pair"}.get(name)
    if column is not None:
        assert not {row[column] for row in train} & {row[column] for row in held_out}
    assert read[0].task == read[1].task


@pytest.mark.parametrize(
    ("kind", "labels"),
    [("multi_label_classification", ["a,b", "a", "b"] * 4), ("regression", [n / 2 for n in range(12)])],
)
def test_rows_with_several_labels_or_a_number_are_held_out(kind: str, labels: list[Any]) -> None:
    rows = [{"text": f"the {letter}", "label": label} for letter, label in zip("abcdefghijkl", labels, strict=True)]
    task = make_task("classify", {"problem_type": kind})
    train, held_out = read_rows_to_learn(rows, 0.25, task, FinetuneOptions(), lambda line: None)
    assert (len(train.rows), len(held_out.rows)) == (9, 3)


def test_unknown_quality_is_said(pretrained: Path, tmp_path: Path) -> None:
    progress = StopAfter(-1)
    finetune("classify", pretrained, ROWS, out=tmp_path / "run", options=FinetuneOptions(steps=1), progress=progress)
    assert [line for line in progress.said if "eval=0.2" in line and "nobody knows how good" in line]
    with pytest.raises(UserError, match="out"):
        finetune("classify", pretrained, ROWS)


def test_finetune_skips_bad_rows_of_every_kind(pretrained: Path, tmp_path: Path, bothways: Run) -> None:
    good = [f"{row['text']},{row['label']}" for row in ROWS]
    bad = ["too,many,fields", "only one", ",animal", "the cat has no label,"]
    (tmp_path / "t.csv").write_bytes("\n".join(["text,label", *good, *bad]).encode() + b"\n\xff,animal\n")
    command = ["finetune", "classify", "--model", pretrained, "--train", tmp_path / "t.csv", "--eval", "0.25"]
    command += ["--steps", "2", "--out", tmp_path / "run"]
    code, _, err = bothways(*command)
    assert (code, "t.csv:38: 3 fields, but the header has 2" in err) == (2, True)
    code, out, err = bothways(*command, "--skip-bad")
    assert code == 0, err
    assert "5 of 41 rows left out: " in err
    assert "t.csv:38: 3 fields, but the header has 2: text, label; " in err
    assert "accuracy" in out
    assert "held out 9 of 36 rows" in err
    code, _, err = bothways("evaluate", tmp_path / "run", tmp_path / "t.csv", "--skip-bad")
    assert code == 0, err
    assert "5 of 41 rows left out: " in err
