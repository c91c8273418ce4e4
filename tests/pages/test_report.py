"""Reports of runs: what they say, that a telephone shows it, and what they leave folded."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bothways.data.tables import Row
from bothways.pages.curves import HELD_OUT_COLOUR, TRAINING_COLOUR, curve_svg
from bothways.pages.display_names import HEADS_IN_WORDS, display_name, head_in_words
from bothways.pages.finetuning import finetuning_report
from bothways.pages.marked_text import marked_html
from bothways.pages.pretraining import pretraining_report
from bothways.pages.report import HtmlReport, add_provenance
from bothways.tasks.answer import Answer, AnswerTask
from bothways.tasks.entities import Entity
from bothways.tasks.tag import Tagging, TagTask
from bothways.train.evaluate import Evaluation

METRICS = [
    {"step": 10, "tokens": 100, "seconds": 1.5, "loss": 2.0, "accuracy": 0.25},
    {"step": 10, "tokens": 100, "eval_f1": 0.5},
    {"step": 20, "tokens": 200, "seconds": 75.0, "loss": 1.0, "accuracy": 0.5},
    {"step": 20, "tokens": 200, "eval_f1": 0.75},
    {"step": 30, "tokens": 300, "eval_f1": 0.625},
]
FINETUNED = {
    "train": "train.json", "train_rows": 1390, "evaluation": "dev.json", "evaluation_rows": 2, "best_epoch": 2,
    "date": "2026-11-27 06:29+00:00", "machine": "AMD EPYC, 2 cores, 1 process", "model": "run",
    "options": {"epochs": 3, "steps": 30, "lr": 0.0007348469, "precision": "bfloat16", "skip_bad": False},
}  # fmt: skip
CONTEXT = "The router shows a red light when the line is dead. Press the button for ten seconds. " + "It is slow. " * 40


def page_of(report: HtmlReport, path: Path) -> str:
    report.write(path / "page.html")
    return (path / "page.html").read_text(encoding="utf-8")


def words_of(page: str) -> str:
    """What a reader sees of a page: no style, no tags, one blank between words."""
    body = page.split("</head>")[1]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def answers() -> Evaluation:
    task = AnswerTask.make(AnswerTask.Options())
    questions = [("What is red?", "red light", 19), ("How long?", "ten seconds", CONTEXT.index("ten seconds"))]
    rows = [
        Row({"question": question, "context": CONTEXT, "answers": [{"text": text, "answer_start": start}]}, "a:1")
        for question, text, start in questions
    ]
    predictions = [Answer("red light", 19, 28, 0.9), Answer("the line", 34, 42, 0.8)]
    return Evaluation(task, rows, predictions, task.metrics(predictions, rows))


def test_a_report_of_fine_tuning_says_rows_best_epoch_time_date_and_machine(tmp_path: Path) -> None:
    report = finetuning_report(METRICS, answers(), "help", FINETUNED)
    add_provenance(report, FINETUNED)
    words = words_of(page_of(report, tmp_path))
    for told in (
        "F1 0.500", "exact match 0.500", "trained on 1,390 rows: train.json", "measured on 2 rows: dev.json",
        "best epoch 2 of 3", "time 1:15", "date 2026-11-27 06:29+00:00", "AMD EPYC, 2 cores, 1 process",
        "started from run", "learning rate 0.0007348", "precision bfloat16", "skip bad no",
    ):  # fmt: skip
        assert told in words, told
    assert "None" not in words


def test_answers_are_shown_in_their_context_wrong_ones_first(tmp_path: Path) -> None:
    page = page_of(finetuning_report(METRICS, answers(), "help", FINETUNED), tmp_path)
    wrong, right = page.index("Examples that are wrong"), page.index("Examples that are right")
    assert wrong < page.index("<mark>the line</mark> is dead.") < right
    assert wrong < page.index("<u>ten seconds</u>") < right
    assert right < page.index("<u><mark>red light</mark></u>")
    assert page.count("It is slow.") < 40, "of a long text only what is near is shown"


def test_entities_are_shown_in_their_context(tmp_path: Path) -> None:
    task = TagTask.make(TagTask.Options(scheme="BIO"))
    rows = [Row({"words": ["my", "router", "in", "May"], "labels": ["O", "B-device", "O", "B-date"]}, "a:1")]
    words = [(0, 2), (3, 9), (10, 12), (13, 16)]
    found = [Entity("device", "router", 3, 9, 0.9), Entity("plan", "in", 10, 12, 0.5)]
    predictions = [Tagging(["O", "B-device", "B-plan", "O"], [0.9] * 4, words, found)]
    evaluation = Evaluation(task, rows, predictions, task.metrics(predictions, rows))
    page = page_of(finetuning_report(METRICS, evaluation, "tags"), tmp_path)
    assert (
        "my <u><mark>router <small>device</small></mark></u> <mark>in <small>plan</small></mark> "
        "<u>May <small>date</small></u>"
    ) in page
    assert '<th class="number">entities</th>' in page


def test_marks_of_a_long_text_and_of_overlapping_spans() -> None:
    text = "a" * 10 + " " + "b " * 200 + "the end"
    marked = marked_html(text, [(0, 10, "")], [(len(text) - 3, len(text), "")])
    assert marked.startswith("<mark>aaaaaaaaaa</mark> b b")
    assert marked.endswith("b the <u>end</u>")
    assert marked.count(" … ") == 1
    assert marked_html("1 July <&", [(2, 6, "date")], [(0, 6, "date")]) == (
        "<u>1 </u><u><mark>July <small>date</small></mark> <small>date</small></u> &lt;&amp;"
    )
    assert marked_html("nothing", [], []) == "nothing"


def test_a_report_of_pretraining_says_text_epochs_and_what_is_missing(tmp_path: Path) -> None:
    fill = {"text": "a [MASK]", "truth": "b", "guess": ",", "probability": 0.25}
    metrics = [
        {"step": 10, "tokens": 1000, "seconds": 2.0, "loss": 7.5, "mlm_loss": 6.5, "nsp_loss": 1.0},
        {"step": 10, "eval_mlm_loss": 6.25, "eval_fills": [fill]},
    ]
    provenance = {
        "text": "40 files in texts", "documents": 39, "tokens": 100_095, "held_out_documents": 1,
        "held_out_tokens": 1966, "epochs": 7.52,
    }  # fmt: skip
    words = words_of(page_of(pretraining_report(metrics, "run", provenance), tmp_path))
    assert "40 files in texts: 39 documents, 100,095 tokens; held out: 1 document, 1,966 tokens" in words
    assert "10 steps, 1,000 tokens, the text 7.5 times" in words
    assert "held-out masked-LM loss (nats) 6.250" in words
    assert "One document is held out" in words
    assert "“,” 25%" in words


def test_axes_count_epochs_or_steps_and_colours_stay() -> None:
    pytest.importorskip("matplotlib")
    svg = curve_svg(METRICS, "f1", epochs_per_step=0.1)
    assert ">epochs<" in svg
    assert "million" not in svg
    ticks = re.findall(r">(\d+)<", svg)
    assert ticks == sorted(set(ticks), key=int), "no tick twice"
    assert {"1", "2", "3"} <= set(ticks)
    assert HELD_OUT_COLOUR in svg
    assert TRAINING_COLOUR not in svg, "there is no training figure of this name"
    assert TRAINING_COLOUR in curve_svg(METRICS, "loss")
    single = curve_svg([{"step": 3, "eval_f1": 0.5}], "f1", epochs_per_step=1 / 3)
    assert re.findall(r">(\d+)<", single) == ["0", "1"]


def test_keys_have_names_for_people_and_every_head_says_what_it_does() -> None:
    from bothways.model.families import HEAD_KINDS

    assert {head.__name__ for head in HEAD_KINDS.values()} <= set(HEADS_IN_WORDS)
    assert head_in_words("SequenceHead", 1) == "gives a text a number"
    assert display_name("least_probability") == "probability of the least sure part"
    assert display_name("eval_mlm_accuracy") == "held-out masked-LM accuracy"
    assert display_name("token_accuracy") == "token accuracy"


def reports(folder: Path) -> list[Path]:
    wide = HtmlReport("A report")
    wide.confusion([f"label {number}" for number in range(12)], [[number] * 12 for number in range(12)])
    wide.table(["text", "truth", "probability"], [["a sentence of a few words " * 9, "hardware", 0.5]] * 3)
    finetuned = finetuning_report(METRICS, answers(), "help", FINETUNED)
    paths = [folder / "wide.html", folder / "finetuned.html"]
    for report, path in zip((wide, finetuned), paths, strict=True):
        report.write(path)
    return paths


def test_a_telephone_shows_curves_and_texts_in_a_size_to_read(browser: Any, tmp_path: Path) -> None:
    for path in reports(tmp_path):
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, "nothing hangs over the side"
        heights = page.eval_on_selector_all(
            ".curves svg text", "texts => texts.map((text) => text.getBoundingClientRect().height)"
        )
        assert all(height >= 11 for height in heights), "letters of 11 pixels"
        widths = page.eval_on_selector_all(
            ".stack td", "cells => cells.map((cell) => cell.getBoundingClientRect().width)"
        )
        assert all(width >= 300 for width in widths), "a column of text is as wide as the screen"
        scrolling = page.eval_on_selector_all(
            ".scroll", "boxes => boxes.filter((box) => box.scrollWidth > box.clientWidth)"
            ".map((box) => getComputedStyle(box).backgroundImage.includes('radial-gradient'))",
        )  # fmt: skip
        assert all(scrolling), "what scrolls casts a shadow"
        page.close()


def test_what_is_long_is_folded(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(reports(tmp_path)[1].as_uri())
    titles = page.eval_on_selector_all("details:not([open]) > summary > h2", "titles => titles.map((t) => t.innerText)")
    assert "Examples that are right" in titles
    assert not page.get_by_text("share that is right").is_visible()
    page.get_by_text("Calibration", exact=True).click()
    assert page.get_by_text("share that is right").first.is_visible()
    page.close()


def test_a_report_is_written_of_json_numbers_too(tmp_path: Path) -> None:
    """Provenance comes out of a file."""
    report = HtmlReport("run")
    add_provenance(report, json.loads(json.dumps({"epochs": 1.5, "options": {"phases": ["128:0.9"], "seed": 0}})))
    assert "phases 128:0.9" in words_of(page_of(report, tmp_path))
