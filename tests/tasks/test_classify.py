"""Classification: encoding as transformers does it, metrics as scikit-learn does, fine-tuning end to end."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib import resources
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix, f1_score
from transformers import AutoTokenizer, BertForSequenceClassification

import bothways as bw
from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint
from bothways.data.encoded import join_segments
from bothways.data.tables import read_rows
from bothways.errors import TruncationWarning, UserError
from bothways.model.families import head_builder
from bothways.tasks.classifications import Classification
from bothways.tasks.classify import ClassifyTask
from bothways.text.tokenizer import Tokenizer
from bothways.train.finetune import finetune
from bothways.train.finetune_options import FinetuneOptions
from tests.helpers import tiny_config, tiny_tokenizer

ROWS = [
    {"text": f"the {size} {colour} {noun} {verb}.", "label": "thing" if noun == "house" else "animal"}
    for size, colour, noun, verb in product(
        ("big", "small", "old"), ("red", "blue", "green"), ("dog", "cat", "bird", "house"), ("runs", "sleeps", "eats")
    )
]
ROWS += [{"text": f"a {colour} house in the {colour} house.", "label": "thing"} for colour in ("red", "new", "blue")]


@pytest.mark.parametrize("limit", [512, 20, 11, 8])
def test_texts_and_pairs_are_encoded_as_transformers_does(minilm: Path, limit: int) -> None:
    tokenizer, theirs = Tokenizer.load(minilm), AutoTokenizer.from_pretrained(minilm)
    words = [
        "the",
        "quick",
        "brown",
        "fox",
        "jumps",
        "over",
        "thirteen",
        "unbelievably",
        "lazy",
        "dogs",
        "while",
        "nobody",
        "looks",
    ]
    pairs = [(" ".join(words[:n]), " ".join(words[: 13 - n] or ["x"])) for n in range(1, 13)]
    for ours, pair in zip(join_segments(tokenizer, pairs, limit), pairs, strict=True):
        expected = theirs(*pair, truncation=True, max_length=limit)
        assert ours.input_ids.tolist() == expected["input_ids"]
        assert ours.token_type_ids.tolist() == expected["token_type_ids"]
        assert ours.truncated == len(theirs(*pair)["input_ids"]) - len(expected["input_ids"])
    for ours, text in zip(join_segments(tokenizer, [a for a, _ in pairs], limit), pairs, strict=True):
        assert ours.input_ids.tolist() == theirs(text[0], truncation=True, max_length=limit)["input_ids"]


def test_metrics_equal_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels = ("a", "b", "c", "never")
    truth, guess = rng.choice(labels[:3], 200), rng.choice(labels[:3], 200)
    task = ClassifyTask(labels=labels)
    rows = read_rows([{"text": "x", "label": label} for label in truth])
    figures = task.metrics([Classification(label, {}) for label in guess], rows)
    expected = classification_report(truth, guess, labels=labels, output_dict=True, zero_division=0)
    assert figures["accuracy"] == accuracy_score(truth, guess)
    assert figures["macro_f1"] == pytest.approx(
        f1_score(truth, guess, average="macro")
    )  # without the one that is absent
    assert figures["confusion"] == confusion_matrix(truth, guess, labels=labels).tolist()
    for label in labels:
        assert list(figures["labels"][label].values()) == pytest.approx(list(expected[label].values()))


def test_fine_tuning_learns_saves_and_answers(pretrained: Path, tmp_path: Path) -> None:
    options = FinetuneOptions(epochs=20, batch_size=8, lr=2e-3, precision="float32")
    result = finetune("classify", pretrained, ROWS, ROWS, tmp_path / "run", options)
    assert result.metrics is not None
    assert result.metrics["accuracy"] == 1.0
    model = bw.load(tmp_path / "run")
    assert model.labels == ["animal", "thing"]
    answers = model.classify([row["text"] for row in ROWS])
    assert [answer.label for answer in answers] == [row["label"] for row in ROWS]
    assert sum(answers[0].scores.values()) == pytest.approx(1)
    theirs = BertForSequenceClassification.from_pretrained(tmp_path / "run" / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    with torch.inference_mode():
        logits = theirs(**tokenizer(ROWS[0]["text"], return_tensors="pt")).logits.softmax(-1)[0]
    assert logits.tolist() == pytest.approx(list(answers[0].scores.values()), abs=1e-5)
    assert theirs.config.id2label == {0: "animal", 1: "thing"}
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["accuracy"] == 1.0


def test_same_seed_same_model_and_resume_is_exact(pretrained: Path, tmp_path: Path) -> None:
    from tests.train.running import StopAfter, state_of

    options = FinetuneOptions(epochs=2, batch_size=8, precision="float32", log_every=3)
    finetune("classify", pretrained, ROWS, ROWS, tmp_path / "a", options)
    finetune("classify", pretrained, ROWS, ROWS, tmp_path / "b", options, progress=StopAfter(9))
    finetune("classify", pretrained, ROWS, ROWS, tmp_path / "b", options, progress=StopAfter(-1))
    assert state_of(tmp_path / "a") == state_of(tmp_path / "b")
    with pytest.raises(UserError, match="made otherwise: eval was rows in memory, not given now"):
        finetune("classify", pretrained, ROWS[1:], None, tmp_path / "b", options)
    other = Checkpoint(new_model(tiny_config(), head_builder("pretraining"), seed=2), tiny_tokenizer())
    save_checkpoint(other, tmp_path / "other")
    with pytest.raises(UserError, match=r"made otherwise: model was .*base, now .*other"):
        finetune("classify", tmp_path / "other", ROWS, ROWS, tmp_path / "b", options)


def test_pairs_and_token_budget(pretrained: Path, tmp_path: Path) -> None:
    rows = [
        {"a": row["text"], "b": other["text"], "same": str(row["label"] == other["label"])}
        for row, other in pairwise(ROWS)
    ]
    options = FinetuneOptions(steps=5, tokens_per_step=200, sequence_length=16)
    columns = {"text_column": "a", "pair_column": "b", "label_column": "same"}
    result = finetune("classify", pretrained, rows, rows, tmp_path / "run", options, **columns)
    assert result.training.steps == 5
    assert result.truncated > 0
    model = bw.load(tmp_path / "run")
    assert model.classify([("the dog runs.", "a cat eats.")])[0].label in ("True", "False")
    with pytest.warns(TruncationWarning, match="1 of 1 texts are longer than 16 tokens"):
        model.classify([("the dog runs. " * 9, "a cat eats.")])


def test_refusals(pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"row 1: label 'gas' was never seen in training; known: animal, thing"):
        finetune("classify", pretrained, ROWS, [{"text": "x", "label": "gas"}], tmp_path / "r")
    with pytest.raises(UserError, match="every row has the label 'animal'"):
        finetune("classify", pretrained, ROWS[:3], None, tmp_path / "r")
    with pytest.raises(UserError, match="row 2: column 'label' has no label"):
        finetune("classify", pretrained, [ROWS[0], {"text": "x", "label": ""}], None, tmp_path / "r")
    with pytest.raises(UserError, match="sequence_length=1000 is above what the model reads, 512 tokens"):
        finetune("classify", pretrained, ROWS, None, tmp_path / "r", FinetuneOptions(sequence_length=1000))
    for options, message in (
        (FinetuneOptions(epochs=0), "epochs=0"),
        (FinetuneOptions(steps=0), "steps=0"),
        (FinetuneOptions(lr=0), "lr=0"),
        (FinetuneOptions(sequence_length=0), "sequence_length=0"),
        (FinetuneOptions(tokens_per_step=-5), "tokens_per_step=-5"),
        (FinetuneOptions(dropout=2), r"hidden_dropout_prob \(dropout\) 2"),
        (FinetuneOptions(seed=1 << 70), "seed"),
    ):
        with pytest.raises(UserError, match=message):
            finetune("classify", pretrained, ROWS, None, tmp_path / "r", options)
    with pytest.raises(UserError, match="unknown task 'clasify'"):
        finetune("clasify", pretrained, ROWS, None, tmp_path / "r")


def test_labels_are_names_or_numbers() -> None:
    rows = read_rows([{"text": "x", "label": label} for label in (1.0, 2, "3", True)])
    assert ClassifyTask().fitted(rows).labels == ("1", "2", "3", "True")
    for bad in (float("nan"), ["a"], {"a": 1}):
        with pytest.raises(UserError, match="row 1: column 'label'"):
            ClassifyTask().check(read_rows([{"text": "x", "label": bad}])[0])


def tickets(name: str) -> list[dict[str, str]]:
    folder = resources.files("bothways") / "samples" / "helpdesk"
    return [json.loads(line) for line in (folder / f"tickets-{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_helpdesk_tickets_are_many_balanced_and_split_cleanly() -> None:
    train, test = tickets("train"), tickets("test")
    assert len(train) + len(test) >= 450
    for part in (train, test):
        counts = Counter(ticket["label"] for ticket in part)
        assert set(counts) == {"hardware", "software", "billing"}
        assert max(counts.values()) <= 1.2 * min(counts.values())

    def shingles(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", text.lower())
        return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}

    seen = [shingles(ticket["text"]) for ticket in train]
    for ticket in test:
        own = shingles(ticket["text"])
        assert max(len(own & other) / len(own | other) for other in seen) < 0.5
