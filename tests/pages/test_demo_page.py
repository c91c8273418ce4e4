"""The demo and its page say where a model is unsure, and which answers are wrong; without shipped models it goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from bothways.checkpoint.hugging_face import Checkpoint, load_checkpoint, new_model, save_checkpoint
from bothways.checkpoint.shipped import INSTALL
from bothways.data.prepare import prepare
from bothways.demo.learning import MASKED, SENTENCE_PAIRS, learn_from_nothing, read_on, reading_on_options
from bothways.demo.screen import fill, judge_pairs
from bothways.demo.shipped import QUESTIONS, SENTENCES, TAGGED, ask_shipped, shipped_directory
from bothways.model.families import head_builder
from bothways.model.task_heads import EmbeddingHead
from bothways.pages.demo import SortedTickets, report_pretraining, report_reading_on, report_shipped, right_or_wrong
from bothways.pages.report import HtmlReport
from bothways.predictor import load
from bothways.tasks.answer import AnswerOptions, AnswerTask
from bothways.tasks.similar import SimilarOptions, SimilarTask
from bothways.train.pretrain_options import PretrainOptions
from tests.data.test_prepare import write_corpus

CONSOLE = Console(soft_wrap=True, highlight=False)
UNSURE = "(unsure: more likely wrong than right)"


def page_of(report: HtmlReport, folder: Path) -> str:
    report.write(folder / "page.html")
    return (folder / "page.html").read_text(encoding="utf-8")


def test_what_the_model_is_unsure_of_is_said(
    pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that was never trained is sure of nothing."""
    model = load(pretrained)
    fills, pairs = fill(model, MASKED, CONSOLE), judge_pairs(model, SENTENCE_PAIRS, CONSOLE)
    assert capsys.readouterr().out.count(UNSURE) == len(fills)
    assert [pair[-1] for pair in pairs] == [
        right_or_wrong((pair[3] >= 0.5) == follows) for pair, follows in zip(pairs, (1, 1, 0, 0), strict=True)
    ]
    directory = tmp_path / "pretrained" / "model"
    directory.mkdir(parents=True)
    (directory / "bothways.json").write_text(json.dumps({"provenance": {"options": {}}}))
    report = HtmlReport("demo")
    report_pretraining(report, tmp_path, fills, pairs)
    page = page_of(report, tmp_path)
    assert f"Of {len(fills)} of these {len(fills)} masks the model is unsure" in page
    assert page.count("(unsure)") == len(fills)
    assert page.count(">wrong<") == sum(pair[-1] == "wrong" for pair in pairs)


def test_a_perceptron_that_sorts_better_is_said(tmp_path: Path) -> None:
    evaluation: Any = SimpleNamespace(metrics={"accuracy": 0.6})
    compared = [["perceptron", 0.8], ["BERT", 0.6]]
    assert (
        SortedTickets("BERT", tmp_path, evaluation, compared, []).verdict().startswith("Here perceptron sorts better")
    )
    assert SortedTickets("BERT", tmp_path, evaluation, [["perceptron", 0.6], compared[1]], []).verdict() == ""


def test_pairs_that_it_cannot_tell_are_counted(tmp_path: Path) -> None:
    directory = tmp_path / "pretrained" / "model"
    directory.mkdir(parents=True)
    (directory / "bothways.json").write_text(json.dumps({"provenance": {"options": {}}}))
    report = HtmlReport("demo")
    pairs = [["a", "b", "follows", probability, "right"] for probability in (0.55, 0.45, 0.9)]
    report_pretraining(report, tmp_path, [], pairs)
    assert "Of 2 of these 3 pairs it cannot tell" in page_of(report, tmp_path)


def test_without_shipped_models_it_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bothways.checkpoint.shipped.PACKAGE", "no_such_package")
    assert ask_shipped(CONSOLE) is None
    assert capsys.readouterr().out.splitlines() == [
        f"no shipped models here ({INSTALL} installs them), so the demo goes on without them"
    ]
    report = HtmlReport("demo")
    report_shipped(report, None)
    assert "The shipped models are not installed here" in page_of(report, tmp_path)


@pytest.fixture
def shipped(tmp_path: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the package: models of random weights, one for each of the verbs that are asked."""
    package = tmp_path / "stand_in_models"
    start = load_checkpoint(pretrained)
    tasks = {
        "answers": ("answer", head_builder("span"), AnswerTask(AnswerOptions(), no_answer=True).to_json()),
        "vectors": ("similar", lambda encoder: EmbeddingHead("mean"), SimilarTask(SimilarOptions()).to_json()),
        "entities": ("tag", head_builder("token", 3), {"task": "tag", "labels": ["O", "B-person", "I-person"]}),
    }
    table = {
        "mini": {"verbs": ["fill", "finetune"], "about": ""},
        **{name: {"verbs": [verb], "about": ""} for name, (verb, _, _) in tasks.items()},
    }
    save_checkpoint(start, package / "models" / "mini")
    for name, (_, head, metadata) in tasks.items():
        model = new_model(start.config, head, seed=0)
        save_checkpoint(Checkpoint(model, start.tokenizer, metadata), package / "models" / name)
    (package / "__init__.py").write_text("")
    (package / "models.json").write_text(json.dumps(table))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("bothways.checkpoint.shipped.PACKAGE", package.name)


def test_shipped_models_are_asked_at_once_and_read_on(
    shipped: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = ask_shipped(CONSOLE)
    assert answers is not None
    assert [line[0] for line in answers.asked] == [question for question, _ in QUESTIONS]
    assert sorted(text for text, *_ in answers.similar) == sorted(SENTENCES)
    assert [text for text, _, meant in answers.similar if meant] == SENTENCES[:1]
    assert [text for text, _ in answers.marked] == TAGGED
    assert capsys.readouterr().out.count(UNSURE) == len(answers.fills) + sum(line[2] < 0.5 for line in answers.asked)
    mini = shipped_directory("finetune")
    assert mini == tmp_path / "stand_in_models" / "models" / "mini"
    write_corpus(tmp_path / "corpus.jsonl", documents=60)
    how = reading_on_options(mini, 1.0, seed=0)
    assert (how.objective, how.minutes) == ("bert", 1.0)
    monkeypatch.setattr("bothways.train.budget._choose", lambda options, *rest: replace(options, steps=2))
    result, read = read_on(tmp_path / "corpus.jsonl", mini, tmp_path, replace(how, sequence_length=32), CONSOLE)
    assert result.steps == 2
    assert read.before != read.after
    report = HtmlReport("demo")
    report_shipped(report, answers)
    report_reading_on(report, tmp_path, read)
    page = page_of(report, tmp_path)
    assert page.index("At once") < page.index("Reading on")
    assert page.count("(unsure)") == len(answers.fills) + 2 * len(MASKED)


def test_the_same_held_out_words_are_shown_over_time(
    tmp_path: Path, pretrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tmp_path / "c.jsonl", documents=60)
    store = prepare(tmp_path / "c.jsonl", load_checkpoint(pretrained).tokenizer, tmp_path / "store")
    options = PretrainOptions(size="tiny", steps=10, tokens_per_step=200, sequence_length=32)
    learn_from_nothing(store, tmp_path / "run", options, CONSOLE)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "the same held-out words after 1, 5, 10 steps:"
    assert all(line.count("→") == 2 for line in said[2::2])
    assert all("(wrong, is " in line or "(right)" in line for line in said[2::2])
