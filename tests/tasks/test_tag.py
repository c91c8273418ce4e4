"""Tagging: one decision a word, span figures as seqeval's, label schemes, fine-tuning end to end."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import classification_report, f1_score
from seqeval.metrics.sequence_labeling import get_entities
from transformers import AutoTokenizer, BertForTokenClassification

import bothways as bw
from bothways.data.tables import Row, read_rows
from bothways.errors import UserError
from bothways.tasks.entities import entity_words, scheme_of
from bothways.tasks.metrics import span_figures
from bothways.tasks.tag import TagOptions, TagTask
from bothways.tasks.tag_windows import FIRST_PIECES
from bothways.text.tokenizer import Tokenizer
from bothways.train.finetune import finetune
from bothways.train.finetune_options import FinetuneOptions
from tests.helpers import hugging_face_config, tiny_config, tiny_tokenizer

ROWS = [
    {
        "words": ["the", adjective, animal, verb, "in", "the", place],
        "labels": ["O", "B-beast", "I-beast", "O", "O", "O", "B-place"],
    }
    for adjective in ("red", "old", "big")
    for animal in ("dog", "cat", "bird")
    for verb in ("runs", "sleeps")
    for place in ("house", "green")
]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_word_gets_one_decision(data: st.DataObject) -> None:
    """Any words, any window and overlap: each word with a piece is decided once, by its own first piece."""
    words = data.draw(st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=40))
    overlap = data.draw(st.integers(0, 6))
    limit = data.draw(st.integers(8, 40))
    task = TagTask(TagOptions(overlap=overlap), ("A", "O"))
    tokenizer, row = tiny_tokenizer(), Row({"words": words}, "row 1")
    encoded = task.encode([row], tokenizer, limit)
    assert max(len(one.input_ids) for one in encoded) <= limit
    decided = np.concatenate([one.targets["words"] for one in encoded])
    assert len(set(decided)) == len(decided)
    found = task.words(row, labelled=False)
    pieces = tokenizer.encode(found.text, special_tokens=False)
    for number, (start, end) in enumerate(found.characters):
        own = np.flatnonzero((pieces.offsets[:, 0] >= start) & (pieces.offsets[:, 0] < end))
        assert (number in decided) == bool(len(own))
        for one in encoded:
            for token in one.targets[FIRST_PIECES][one.targets["words"] == number]:
                assert one.offsets[token].tolist() == pieces.offsets[own[0]].tolist()
    scores = [np.tile([1.0, 0.0], (len(one.targets["words"]), 1)).astype(np.float32) for one in encoded]
    prediction = task.decode(scores, encoded, row)
    assert prediction.labels == ["A" if number in decided else "O" for number in range(len(words))]


def test_windows_decide_where_there_is_most_context() -> None:
    task = TagTask(TagOptions(overlap=4), ("A", "O"))
    row = Row({"words": ["dog"] * 14}, "row 1")
    encoded = task.encode([row], tiny_tokenizer(), 10)  # windows of 8 words: 0–7, 4–11, 8–13
    decided = [one.targets["words"].tolist() for one in encoded]
    assert decided == [list(range(6)), list(range(6, 10)), list(range(10, 14))]


def random_tags(rng: random.Random, kinds: Sequence[str], prefixes: str) -> list[str]:
    return [rng.choice(["O", *(f"{p}-{kind}" for p in prefixes for kind in kinds)]) for _ in range(rng.randint(1, 12))]


def test_spans_are_seqevals_on_adversarial_tags() -> None:
    """Ill-formed sequences of all prefixes, kinds that begin alike and hold hyphens."""
    rng = random.Random(0)
    for _ in range(1000):
        tags = random_tags(rng, ["a", "b", "a-b"], "BIES")
        assert entity_words(tags) == get_entities(tags)


def check_figures(truth: list[list[str]], guess: list[list[str]]) -> None:
    ours, expected = span_figures(truth, guess), classification_report(truth, guess, output_dict=True, zero_division=0)
    assert ours["f1"] == pytest.approx(f1_score(truth, guess, zero_division=0))
    for name in ("precision", "recall", "f1"):
        assert ours[name] == pytest.approx(expected["micro avg"]["f1-score" if name == "f1" else name])
    for kind, figures in ours["labels"].items():
        assert list(figures.values()) == pytest.approx(list(expected[kind].values()))


def test_span_figures_are_seqevals_on_real_and_on_adversarial_tags(shared_data: Path) -> None:
    rng = random.Random(0)
    real = [row.values["labels"] for row in read_rows(shared_data / "wnut17" / "test.conll")][:1000]
    kinds = sorted({tag for tags in real for tag in tags})
    check_figures(real, [[tag if rng.random() < 0.9 else rng.choice(kinds) for tag in tags] for tags in real])
    truth = [random_tags(rng, ["x", "y"], "BI") for _ in range(1000)]
    wrong = ["O", "B-x", "I-y"]
    check_figures(truth, [[tag if rng.random() < 0.6 else rng.choice(wrong) for tag in tags] for tags in truth])


def test_schemes() -> None:
    assert scheme_of(["B-x", "I-x", "O"]) == "BIO"
    assert scheme_of(["B-x", "E-x", "O", "S-y"]) == "BIOES"
    assert scheme_of(["x", "O", "y"]) == "IO"
    assert scheme_of(["NOUN", "VERB", "B-"]) == "plain"
    text = "Dr. Ann Lee, Rome."
    marked = [{"start": 0, "end": 11, "label": "person"}, {"start": 13, "end": 17, "label": "place"}]
    row = Row({"text": text, "spans": marked}, "row 1")
    expected = {
        "BILOU": ["B-person", "I-person", "I-person", "L-person", "O", "U-place", "O"],
        "auto": ["B-person", "I-person", "I-person", "I-person", "O", "B-place", "O"],
        "BIOES": ["B-person", "I-person", "I-person", "E-person", "O", "S-place", "O"],
        "IO": ["person", "person", "person", "person", "O", "place", "O"],
    }
    for scheme, labels in expected.items():
        task = TagTask(TagOptions(scheme=scheme)).fitted([row])  # type: ignore[arg-type]
        words = task.words(row)
        assert words.labels == labels
        assert [text[a:b] for a, b in words.characters] == ["Dr", ".", "Ann", "Lee", ",", "Rome", "."]
        encoded = task.add_targets(task.encode([row], tiny_tokenizer(), 64), [row])
        scores = [np.eye(len(task.labels), dtype=np.float32)[one.targets["labels"]] * 9 for one in encoded]
        found = task.decode(scores, encoded, row).entities
        assert [(one.label, one.start, one.end, one.text) for one in found] == [
            ("person", 0, 11, "Dr. Ann Lee"),
            ("place", 13, 17, "Rome"),
        ]
    with pytest.raises(UserError, match="scheme='BIOES': the label 'Q-x' is none of it"):
        TagTask(TagOptions(scheme="BIOES")).fitted([Row({"words": ["a", "b"], "labels": ["Q-x", "O"]}, "row 1")])


def test_fine_tuning_learns_saves_and_tags(pretrained: Path, tmp_path: Path) -> None:
    options = FinetuneOptions(epochs=8, batch_size=8, lr=2e-3, precision="float32")
    result = finetune("tag", pretrained, ROWS, ROWS, tmp_path / "run", options, overlap=4)
    assert result.metrics is not None
    assert result.metrics["f1"] == 1.0
    model = bw.load(tmp_path / "run")
    text = "The  big dog,sleeps in the GREEN"
    entities: Any = model.tag(text)
    assert [(one.label, one.text, one.start, one.end) for one in entities] == [
        ("beast", "big dog", 5, 12),
        ("place", "GREEN", 27, 32),
    ]
    again: Any = model.tag(["the dog", text])
    assert [one.text for one in again[1]] == ["big dog", "GREEN"]
    assert again[1][0].probability == pytest.approx(entities[0].probability, abs=1e-5)
    theirs = BertForTokenClassification.from_pretrained(tmp_path / "run" / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    with torch.inference_mode():
        logits = theirs(**tokenizer(text, return_tensors="pt")).logits[0].softmax(-1)
    assert entities[0].probability == pytest.approx(logits[2:4].max(-1).values.min().item(), abs=1e-5)
    assert list(theirs.config.id2label.values()) == ["B-beast", "B-place", "I-beast", "O"]


def test_parts_of_speech(pretrained: Path, tmp_path: Path) -> None:
    kinds = dict.fromkeys(("the", "in"), "FUNCTION") | dict.fromkeys(("runs", "sleeps"), "VERB")
    rows = [{"words": row["words"], "labels": [kinds.get(word, "OTHER") for word in row["words"]]} for row in ROWS]
    result = finetune("tag", pretrained, rows, rows, tmp_path / "run", FinetuneOptions(epochs=8, batch_size=8, lr=2e-3))
    assert result.metrics is not None
    assert result.metrics["accuracy"] == 1.0
    assert set(result.metrics["labels"]) == {"FUNCTION", "OTHER", "VERB"}
    found: Any = bw.load(tmp_path / "run").tag("the red dog sleeps.")
    assert [(one.label, one.text) for one in found][1:4] == [("OTHER", "red"), ("OTHER", "dog"), ("VERB", "sleeps")]


def test_a_tagger_from_elsewhere_works_at_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    names = ["O", "B-x", "I-x"]
    numbers = {name: index for index, name in enumerate(names)}
    config = hugging_face_config(tiny_config(), id2label=dict(enumerate(names)), label2id=numbers)
    theirs = BertForTokenClassification(config).eval()
    theirs.classifier.weight.data.normal_()
    theirs.save_pretrained(tmp_path)
    tiny_tokenizer().save(tmp_path)
    model = bw.load(tmp_path)
    assert model.labels == names
    text = "the dog runs in a house and the bird eats the old green cat on a red house"
    with torch.inference_mode():
        numbers_of = (
            theirs(**AutoTokenizer.from_pretrained(tmp_path)(text, return_tensors="pt")).logits[0, 1:-1].argmax(-1)
        )
    tags = [names[number] for number in numbers_of]
    assert len(set(tags)) > 1
    (found,) = model.predict([{"text": text}])
    assert found.labels == tags


def test_chinese_characters_are_words() -> None:
    text = "我爱北京。Rome 東京"
    assert [text[a:b] for a, b in Tokenizer.words(text)] == ["我", "爱", "北", "京", "。", "Rome", "東", "京"]
    row = Row({"text": text, "spans": [{"start": 2, "end": 4, "label": "place"}]}, "row 1")
    assert TagTask().words(row).labels == ["O", "O", "B-place", "I-place", "O", "O", "O", "O"]


def test_long_texts_are_quick() -> None:
    """100,000 words with 10,000 spans: nothing here is quadratic, or this would take minutes."""
    text = "dog " * 100_000
    marked = [{"start": 40 * n, "end": 40 * n + 7, "label": "x"} for n in range(10_000)]
    row = Row({"text": text, "spans": marked}, "row 1")
    task = TagTask().fitted([row])
    encoded = task.add_targets(task.encode([row], tiny_tokenizer(), 512), [row])
    assert sum(len(one.targets["words"]) for one in encoded) == 100_000


def test_refusals(pretrained: Path, tmp_path: Path) -> None:
    good = ROWS[0]
    for bad, message in (
        ({"words": ["a", "b"], "labels": ["O"]}, "row 2: 2 words in 'words', but 1 labels in 'labels'"),
        ({"words": [], "labels": []}, "row 2: no words"),
        ({"words": ["a", ""], "labels": ["O", "O"]}, "row 2: column 'words' holds '', not a word"),
        ({"words": ["a"], "labels": [None]}, "row 2: column 'labels' has no label"),
        ({"text": "a b", "spans": [{"start": 0, "end": 9, "label": "x"}]}, "from 0 to 9 in a text of 3 characters"),
        ({"text": "a b", "spans": [{"start": 1, "end": 2, "label": "x"}]}, "the span ' ' holds no word"),
        (
            {"text": "a b", "spans": [{"start": 0, "end": 3, "label": "x"}, {"start": 2, "end": 3, "label": "y"}]},
            "the spans 'a b' and 'b' share a word",
        ),
        ({"words": {"a": 1}, "labels": ["O"]}, "column 'words' is \"{'a': 1}\", not a list"),
        ({"text": "a b", "spans": [{"begin": 0}]}, "expected an object of start, end and label"),
        ({"text": " ", "spans": []}, "row 2: column 'text' is empty"),
        ({"sentence": "x"}, "neither a column 'words' nor 'text'; columns present: sentence"),
    ):
        with pytest.raises(UserError, match=message):
            finetune("tag", pretrained, [good, bad], None, tmp_path / "r")
    with pytest.raises(UserError, match="row 1: label 'B-plaice' was never seen in training, did you mean 'B-place'"):
        finetune("tag", pretrained, ROWS, [{"words": ["a"], "labels": ["B-plaice"]}], tmp_path / "r")
    with pytest.raises(UserError, match="every word has the label 'O'"):
        finetune("tag", pretrained, [{"words": ["a"], "labels": ["O"]}], None, tmp_path / "r")
    with pytest.raises(UserError, match="overlap=-6: expected 0 or more tokens"):
        finetune("tag", pretrained, ROWS, None, tmp_path / "r", overlap=-6)
    with pytest.raises(UserError, match="scheme is 'BIOLU', expected 'auto' or 'BIO'"):
        finetune("tag", pretrained, ROWS, None, tmp_path / "r", scheme="BIOLU")
