"""Words of running text are the words that training listed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertForTokenClassification

import bothways as bw
from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint
from bothways.data.tables import Row, read_rows
from bothways.model.families import head_builder
from bothways.tasks.tag import TagOptions, TagTask
from bothways.tasks.word_rule import WordRule
from bothways.text.tokenizer import Tokenizer
from tests.helpers import Run, hugging_face_config, tiny_config, tiny_tokenizer

NAMES = ("U.N.", "AT&T", "E.U.", "Yahoo!", "Coca-Cola", "O'Reilly", "Siemens", "S&P")


def cut(rule: WordRule, text: str) -> list[str]:
    return [text[start:end] for start, end in rule.words(text)]


def sentences() -> list[list[str]]:
    return [["The", name, "met", "in", "Rome", "on", "Monday", "."] for name in NAMES]


def test_a_trained_word_is_a_word_wherever_it_stands() -> None:
    rule = WordRule.learnt(sentences())
    for name in NAMES:
        assert cut(rule, f"({name}), {name}: \"{name}\" and {name}.") == [
            *("(", name, ")", ",", name, ":", '"', name, '"', "and", name, "."),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("We saw Rome, Oslo; and Paris!", "We saw Rome , Oslo ; and Paris !"),
        ("the dog,sleeps (it said)", "the dog , sleeps ( it said )"),  # a blank was forgotten
        ("1,000 of them on 3/4", "1,000 of them on 3/4"),
        ("U.S. e.g.: i.e., etc.", "U.S. e.g. : i.e. , etc ."),  # initials were never seen; etc. was not known
        ("state-of-the-art wi-fi", "state-of-the-art wi-fi"),
        ("wait...what --no--yes", "wait ... what - - no -- yes"),
        ("Rome—Oslo", "Rome — Oslo"),
        ("我爱Rome。東京", "我 爱 Rome 。 東 京"),
        ("... ?!", ". . . ? !"),
        (" \t ", ""),
    ],
)
def test_what_training_said_nothing_of(text: str, expected: str) -> None:
    assert cut(WordRule.learnt(sentences()), text) == expected.split()


def test_what_training_says_of_marks() -> None:
    """Clitics and runs of marks that were words; hyphens that were words of their own, as in UD; @names."""
    treebank = [["Germany", "'s", "search", "-", "engine", "..."], ["l'", "homme", "and", "O'Reilly"]]
    rule = WordRule.learnt(treebank)
    expected = "Germany 's well - known l' homme O'Reilly 's ..."
    assert cut(rule, "Germany's well-known l'homme O'Reilly's...") == expected.split()
    tweets = [[f"@{name}", "says", "#", name] for name in "abcde"]
    assert cut(WordRule.learnt(tweets), "@someone: #tag") == ["@someone", ":", "#", "tag"]
    blanks = [["I", "saw", f"{place}."] for place in ("Rome", "Oslo")]  # split at blanks and nowhere else
    assert cut(WordRule.learnt(blanks), "He saw Paris, too.") == ["He", "saw", "Paris,", "too."]


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet="aZ1.,!-'@(é\u0301東。 \u200b", max_size=30), st.lists(st.text("a.'!-@", min_size=1), min_size=1)
)
def test_words_cover_the_text(text: str, known: list[str]) -> None:
    """Any text, any training words: words are in order, not empty, and have every character but blanks."""
    rule = WordRule.learnt([known])
    assert WordRule.from_json(json.loads(json.dumps(rule.to_json()))) == rule
    words = rule.words(text)
    assert "".join(text[a:b] for a, b in words) == text.replace(" ", "")
    assert all(a < b for a, b in words)


def test_words_of_conll_are_found_again(shared_data: Path) -> None:
    """Listed words of a real corpus, joined as its sentences were, are cut into the same words again."""
    rows = read_rows(shared_data / "wnut17" / "test.conll")
    listed = [row.values["words"] for row in rows]
    rule = WordRule.learnt(listed)
    same = sum(cut(rule, " ".join(words)) == words for words in listed)
    before = sum([" ".join(w)[a:b] for a, b in Tokenizer.words(" ".join(w))] == w for w in listed)
    assert same > 0.9 * len(listed)
    assert before < 0.6 * len(listed)


def labelled(rng: random.Random) -> dict[str, Any]:
    words = ["The", rng.choice(NAMES), rng.choice(["met", "said"]), "in", rng.choice(["Rome", "Oslo"]), "."]
    return {"words": words, "labels": ["O", "B-ORG", "O", "O", "B-LOC", "O"]}


def test_running_text_is_tagged_as_listed_words_are(tmp_path: Path, bothways: Run) -> None:
    """`predict` with words, `tag` on text, in bulk, and the explained page agree; the names are whole."""
    rng = random.Random(0)
    rows = [labelled(rng) for _ in range(120)]
    tokenizer = Tokenizer.train(lambda: [" ".join(row["words"]) for row in rows], 300, False, 1)
    config = tiny_config(vocab_size=tokenizer.vocab_size)
    save_checkpoint(Checkpoint(new_model(config, head_builder("pretraining"), seed=1), tokenizer), tmp_path / "base")
    options = bw.FinetuneOptions(steps=150, batch_size=16, lr=3e-3, precision="float32")
    bw.finetune("tag", tmp_path / "base", rows, None, tmp_path / "run", options)
    model = bw.load(tmp_path / "run")
    texts = [f"The {name} met in Rome." for name in NAMES]
    (tmp_path / "lines.txt").write_text("\n".join(texts) + "\n")
    code, _, errors = bothways("tag", tmp_path / "run", "--in", tmp_path / "lines.txt", "--out", tmp_path / "x.jsonl")
    assert code == 0, errors
    bulk = [json.loads(line)["entities"] for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    for name, text, in_bulk in zip(NAMES, texts, bulk, strict=True):
        entities: Any = model.tag(text)
        expected = [("ORG", name), ("LOC", "Rome")]
        assert [(entity.label, entity.text) for entity in entities] == expected
        (tagging,) = model.predict([{"words": ["The", name, "met", "in", "Rome", "."]}])
        assert [(entity.label, entity.text) for entity in tagging.entities] == expected
        assert [(entity["label"], entity["text"]) for entity in in_bulk] == expected
        shown = model.explain(text).data["predictions"]["tags"]
        assert [(tag["word"], tag["labels"][0][0]) for tag in shown] == [
            *zip(["The", name, "met", "in", "Rome", "."], tagging.labels, strict=True),
        ]  # fmt: skip
        assert shown[1]["labels"][0][1] == pytest.approx(tagging.probabilities[1], abs=1e-3)


def test_which_models_have_a_rule(tmp_path: Path) -> None:
    """Listed words give one; texts with spans, and models of before, are read as they were; a foreign tagger's words
    are whole."""
    listed = TagTask().fitted([Row(labelled(random.Random(0)), "row 1")])
    assert listed.word_rule is not None
    assert TagTask.from_json(listed.to_json()) == TagTask(TagOptions(scheme="BIO"), listed.labels, listed.word_rule)
    spans = Row({"text": "AT&T is here", "spans": [{"start": 0, "end": 4, "label": "ORG"}]}, "row 2")
    assert TagTask().fitted([spans]).word_rule is None
    both = TagTask().fitted([Row(labelled(random.Random(0)), "row 1"), spans])
    assert both.words(spans).labels == ["B-ORG", "O", "O"]
    before = {key: value for key, value in listed.to_json().items() if key != "words"}
    assert TagTask.from_json(before).word_rule is None
    assert listed.identity() == before  # what a run of before it is compared by
    names = {0: "O", 1: "B-x", 2: "I-x"}
    config = hugging_face_config(tiny_config(), id2label=names, label2id={name: n for n, name in names.items()})
    torch.manual_seed(0)
    BertForTokenClassification(config).save_pretrained(tmp_path)
    tiny_tokenizer().save(tmp_path)
    (found,) = bw.load(tmp_path).predict([{"text": "AT&T or O'Reilly."}])
    assert found.words == [(0, 4), (5, 7), (8, 16), (16, 17)]
