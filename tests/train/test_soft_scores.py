"""A teacher of fine-tuning: its scores beside the gold labels, of every task that can learn of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from bothways.checkpoint.hugging_face import Checkpoint, load_checkpoint, new_model, save_checkpoint
from bothways.data.encoded import pack_encoded
from bothways.data.tables import TableOptions
from bothways.errors import UserError
from bothways.inference import engine
from bothways.model.families import head_builder
from bothways.model.heads import Model
from bothways.progress import Progress
from bothways.tasks.base import Task
from bothways.tasks.soft_scores import SoftScoresObjective, with_soft_scores
from bothways.text.tokenizer import Tokenizer
from bothways.train.evaluate import RowSet
from bothways.train.finetune import finetune, make_task
from bothways.train.finetune_options import FinetuneOptions
from bothways.train.run import RunDirectory
from bothways.train.soft_scores import TaughtRows, ask_teacher
from tests.helpers import Run, tiny_config, tiny_tokenizer
from tests.train.running import StopAfter

TEXTS = [
    "the red dog runs",
    "a blue cat sleeps in the house",
    "the old bird eats",
    "a new dog",
    "big cat",
    "not a bird",
]
LABELS = ["dog", "cat", "bird", "dog", "cat", "bird"]
CASES: dict[str, tuple[str, dict[str, Any], list[dict[str, Any]]]] = {
    "classify": ("classify", {}, [{"text": t, "label": label} for t, label in zip(TEXTS, LABELS, strict=True)]),
    "weights": (
        "classify",
        {"class_weights": ("dog=5",)},
        [{"text": t, "label": label} for t, label in zip(TEXTS, LABELS, strict=True)],
    ),
    "pairs": (
        "classify",
        {"pair_column": "pair"},
        [{"text": t, "pair": TEXTS[-n], "label": LABELS[n]} for n, t in enumerate(TEXTS)],
    ),
    "several": (
        "classify",
        {"problem_type": "multi_label_classification"},
        [{"text": t, "label": LABELS[: n % 3]} for n, t in enumerate(TEXTS)],
    ),
    "regression": (
        "classify",
        {"problem_type": "regression"},
        [{"text": t, "label": n / 3} for n, t in enumerate(TEXTS)],
    ),
    "similar": ("similar", {}, [{"text": t, "pair": TEXTS[-n], "score": n} for n, t in enumerate(TEXTS)]),
    "paraphrases": ("similar", {}, [{"text": t, "pair": TEXTS[-n]} for n, t in enumerate(TEXTS)]),
    "tag": (
        "tag",
        {"overlap": 2},
        [{"words": t.split(), "labels": ["B-x" if w in LABELS else "O" for w in t.split()]} for t in TEXTS],
    ),
    "answer": (
        "answer",
        {"overlap": 2},
        [{"question": "the dog?", "context": t, "answers": [t.split()[1]]} for t in TEXTS],
    ),
}  # fmt: skip
LENGTH = 12  # tokens: contexts are read in windows


def rows_of(case: str) -> RowSet:
    name, own, rows = CASES[case]
    return RowSet.read(rows, make_task(name, own), False, TableOptions()).fitted()


def model_of(task: Task, path: Path, seed: int, hidden_size: int = 32, tokenizer: Tokenizer | None = None) -> Path:
    """A model with the task's head and random weights, as if it had been fine-tuned."""
    tokenizer = tokenizer or tiny_tokenizer()
    config = tiny_config(hidden_size=hidden_size, vocab_size=tokenizer.vocab_size, initializer_range=0.3)
    metadata = {**task.to_json(), "sequence_length": LENGTH}
    save_checkpoint(Checkpoint(new_model(config, task.head, seed), tokenizer, metadata), path)
    return path


def ask(rows: RowSet, student: Path, teacher: Path, **options: Any) -> TaughtRows:
    checkpoint = load_checkpoint(student, rows.task.head, labels=rows.task.labels)
    encoded = rows.encode(checkpoint.tokenizer, LENGTH)
    asked = FinetuneOptions(teacher=str(teacher), device="cpu", precision="float32", **options)
    return ask_teacher(rows, encoded, checkpoint, asked, Progress("test", shown=False))


def soft_sum(rows: RowSet, taught: TaughtRows, model: Model) -> tuple[torch.Tensor, float]:
    """The soft loss of all rows as a batch, longest first, and its count."""
    encoded = rows.task.add_targets(rows.encode(tiny_tokenizer(), LENGTH), rows.rows)
    in_order = sorted(taught.add_targets(encoded), key=lambda sequence: -len(sequence.input_ids))
    objective = taught.objective
    batch = pack_encoded(in_order, objective.collate)
    found, counts = objective.sums(model(batch), batch.targets), objective.counts(batch.targets)
    assert objective.losses == ("loss", "soft_loss")
    plain = rows.task.sums(model(batch), batch.targets)
    torch.testing.assert_close({name: found[name] for name in plain}, plain)
    return found["soft_loss"], counts["soft_loss"]


def expected_sum(case: str, rows: RowSet, student: Model, teacher: Model, temperature: float) -> tuple[float, float]:
    """The same in NumPy, of what prediction makes of the rows one by one."""
    encoded = rows.encode(tiny_tokenizer(), LENGTH)
    both = [engine.score(model, rows.task, encoded) for model in (student, teacher)]
    total = count = 0.0
    for ours, theirs in zip(*both, strict=True):
        if case in ("similar", "paraphrases"):
            cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in (ours, theirs)]
            total, count = total + (cosines[0] - cosines[1]) ** 2, count + 1
            continue
        for a, b in zip(ours, theirs, strict=True):
            q, p = (x.astype(np.float64) / temperature for x in (a, b))
            if case == "regression":
                total, count = total + float((a - b) @ (a - b)), count + 1
            elif case == "several":
                yes = [(1 / (1 + np.exp(-x)), 1 / (1 + np.exp(x))) for x in (p, q)]
                total += (
                    sum((of_p * np.log(of_p / of_q)).sum() for of_p, of_q in zip(*yes, strict=True)) * temperature**2
                )
                count += len(a)
            else:
                axis = 0 if case == "answer" else -1
                log_p, log_q = (x - np.log(np.exp(x).sum(axis, keepdims=True)) for x in (p, q))
                total += (np.exp(log_p) * (log_p - log_q)).sum() * temperature**2
                count += {"answer": 2, "tag": len(a)}.get(case, 1)
    return total, count


@pytest.mark.parametrize("case", CASES)
def test_the_soft_loss_is_its_formula_and_zero_for_the_teacher_itself(case: str, tmp_path: Path) -> None:
    rows = rows_of(case)
    width = 48 if case in ("similar", "paraphrases") else 32  # vectors of another width are compared by their cosines
    paths = [model_of(rows.task, tmp_path / "student", 1), model_of(rows.task, tmp_path / "teacher", 2, width)]
    student, teacher = (load_checkpoint(path).model for path in paths)
    taught = ask(rows, *paths, teacher_temperature=3.0)
    loss, count = soft_sum(rows, taught, student)
    assert (float(loss.detach()), count) == pytest.approx(expected_sum(case, rows, student, teacher, 3.0), rel=1e-4)
    assert float(loss.detach()) / count > 1e-3
    loss, _ = soft_sum(rows, ask(rows, paths[0], paths[0]), student)
    grads = torch.autograd.grad(loss, list(student.parameters()), allow_unused=True)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-5)
    assert max(float(grad.abs().max()) for grad in grads if grad is not None) < 1e-4


def test_the_teachers_labels_are_matched_by_name(tmp_path: Path) -> None:
    rows = rows_of("classify")
    teacher = model_of(rows.task, tmp_path / "teacher", 2)
    other = model_of(rows.task, tmp_path / "other", 2)
    order = [2, 0, 1]
    tensors = load_file(other / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = np.ascontiguousarray(tensors[name][order])
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    labels = [rows.task.labels[n] for n in order]
    for file, change in (
        ("bothways.json", {"labels": labels}),
        (
            "config.json",
            {"id2label": dict(enumerate(labels)), "label2id": {label: n for n, label in enumerate(labels)}},
        ),
    ):
        (other / file).write_text(json.dumps({**json.loads((other / file).read_text()), **change}))
    expected, found = ask(rows, teacher, teacher).soft, ask(rows, teacher, other).soft
    assert expected is not None
    assert found is not None
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_teacher_of_another_vocabulary_scores_texts(minilm: Path, tmp_path: Path) -> None:
    """MiniLM, with its own vocabulary and its own width, says how alike texts are."""
    rows = rows_of("similar")
    taught = ask(rows, model_of(rows.task, tmp_path / "student", 1), minilm)
    assert taught.soft is not None
    assert len(taught.soft) == 2 * len(rows.rows)
    assert float(taught.soft[0][0]) == pytest.approx(1, abs=1e-5)  # the first row is a text beside itself


def test_a_run_with_a_teacher(tmp_path: Path, pretrained: Path, bothways: Run) -> None:
    """It is logged, goes on to the same bits, and is another run than that of another teacher."""
    name, _, rows = CASES["classify"]
    teacher = model_of(rows_of("classify").task, tmp_path / "teacher", 2)
    table = tmp_path / "rows.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = FinetuneOptions(
        steps=8, batch_size=3, log_every=1, device="cpu", precision="float32", teacher=str(teacher)
    )
    finetune(name, pretrained, table, None, tmp_path / "whole", options, quiet=True)
    for stop in (3, -1):
        finetune(name, pretrained, table, None, tmp_path / "run", options, progress=StopAfter(stop))
    weights = [(tmp_path / run / "model" / "model.safetensors").read_bytes() for run in ("whole", "run")]
    assert weights[0] == weights[1]
    line = RunDirectory(tmp_path / "run").metrics()[-1]
    assert line["soft_loss"] > 0
    code, _, said = bothways(
        "finetune", "classify", "--model", pretrained, "--train", table, "--eval", table, "--out", tmp_path / "line",
        "--teacher", teacher, "--teacher-weight", 2, "--epochs", 2,
    )  # fmt: skip
    assert (code, "asked about 6 rows" in said) == (0, True), said
    page = (tmp_path / "line" / "report.html").read_text(encoding="utf-8")
    assert "soft-target loss" in page
    with pytest.raises(UserError, match=r"teacher was \S*teacher, not given now"):
        finetune(name, pretrained, table, None, tmp_path / "run", steps=8, batch_size=3, log_every=1, quiet=True)
    with pytest.raises(UserError, match=r"teacher_weight was 1\.0, now 3\.0"):
        finetune(
            name, pretrained, table, None, tmp_path / "run", options.__dict__ | {"teacher_weight": 3.0}, quiet=True
        )


def test_what_cannot_teach_is_refused_in_a_line(tmp_path: Path, pretrained: Path) -> None:
    rows, task = rows_of("classify"), rows_of("classify").task
    student = model_of(task, tmp_path / "student", 1)
    fewer = RowSet.read(CASES["classify"][2][:2], make_task("classify", {}), False, TableOptions()).fitted()
    two = model_of(fewer.task, tmp_path / "two", 1)
    with pytest.raises(UserError, match=r"two'?: has other labels than the rows: it does not know bird$"):
        ask(rows, student, two)
    with pytest.raises(UserError, match=r"student'?: has other labels than the rows: it has besides bird$"):
        ask(fewer, two, student)
    several = model_of(rows_of("several").task, tmp_path / "several", 1)
    with pytest.raises(UserError, match="was made for another kind of classify"):
        ask(rows, student, several)
    with pytest.raises(UserError, match="classify needs a model fine-tuned for it"):
        ask(rows, student, pretrained)
    for options, message in (
        ({"teacher_weight": 0.0}, r"teacher_weight=0\.0: expected a number above 0"),
        ({"teacher_temperature": -1.0}, r"teacher_temperature=-1\.0: expected a number above 0"),
    ):
        with pytest.raises(UserError, match=message):
            ask(rows, student, student, **options)
    with pytest.raises(UserError, match=r"teacher_weight=2\.0: of a teacher, and there is none"):
        finetune("classify", student, CASES["classify"][2], None, tmp_path / "o", teacher_weight=2.0, quiet=True)
    choices = [{"text": "a", "choices": ["dog", "cat"], "label": n} for n in (0, 1)]
    with pytest.raises(UserError, match="choose learns of none; tasks that do: classify, answer, tag, similar"):
        finetune("choose", pretrained, choices, None, tmp_path / "o", teacher=student, quiet=True)
    tags = rows_of("tag")
    pieces = [*tiny_tokenizer().pieces(), "more"]
    other = model_of(tags.task, tmp_path / "other", 1, tokenizer=Tokenizer.from_pieces(pieces))
    tagger = model_of(tags.task, tmp_path / "tagger", 1)
    with pytest.raises(UserError, match=r"other'?: has another vocabulary than .*, and its scores are of tokens"):
        ask(tags, tagger, other)


def test_soft_scores_stay_with_their_sequences() -> None:
    rows = rows_of("tag")
    encoded = rows.encode(tiny_tokenizer(), LENGTH)
    soft = [np.full((len(sequence.targets["words"]), 2), float(n)) for n, sequence in enumerate(encoded)]
    marked = with_soft_scores(rows.task.add_targets(encoded, rows.rows), soft)
    found = SoftScoresObjective(rows.task, 1.0, 1.0).collate(marked[::-1])
    np.testing.assert_array_equal(found["soft"], np.concatenate(soft[::-1]))
    assert len(found["soft"]) == len(found["word_index"])


def test_a_new_head_is_not_asked(tmp_path: Path) -> None:
    """A teacher whose classifier was not in its file."""
    task = rows_of("classify").task
    config = tiny_config()
    metadata = {**task.to_json(), "sequence_length": LENGTH}
    save_checkpoint(
        Checkpoint(new_model(config, head_builder("sequence", 3), 1), tiny_tokenizer(), metadata), tmp_path / "new"
    )
    tensors = load_file(tmp_path / "new" / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier")}
    save_file(kept, tmp_path / "new" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="needs trained weights"):
        ask(rows_of("classify"), model_of(task, tmp_path / "student", 1), tmp_path / "new")
