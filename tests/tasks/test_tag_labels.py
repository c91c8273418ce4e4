"""Labels and spans as they are in the wild: schemes without kinds, BMES, stray labels, places in other units."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from seqeval.metrics.sequence_labeling import get_entities
from transformers import BertForTokenClassification

import bothways as bw
from bothways.data.tables import Row, TableOptions, read_rows
from bothways.errors import UserError
from bothways.tasks.entities import entity_words, scheme_of, tags_of
from bothways.tasks.metrics import span_figures
from bothways.tasks.tag import TagOptions, TagTask
from bothways.train.evaluate import RowSet
from tests.helpers import hugging_face_config, tiny_config, tiny_tokenizer


@pytest.mark.parametrize(
    ("labels", "scheme"),
    [
        (["B", "I", "O"], "BIO"),
        (["I", "O"], "BIO"),
        (["B", "I", "E", "S", "O"], "BIOES"),
        (["B", "M", "E", "S"], "BMES"),  # word segmentation
        (["B-x", "M-x", "E-x", "S-y", "O"], "BMES"),
        (["B-x", "M-x", "E-x", "W-y", "O"], "BMEWO"),
        (["B_x", "I_x", "O"], "BIO"),
        (["S", "O"], "IO"),  # a kind called S
        (["B-cell", "T-cell", "protein", "O"], "IO"),
        (["NOUN", "X", "VERB"], "plain"),  # UPOS has an X
        (["B-x", "I-x", "O", "X", "[CLS]", "[SEP]"], "BIO"),
    ],
)
def test_schemes_are_seen_from_labels(labels: list[str], scheme: str) -> None:
    assert scheme_of(labels) == scheme


def test_entities_of_kindless_labels_are_seqevals() -> None:
    rng = random.Random(0)
    rows = [[rng.choice("BIO") for _ in range(rng.randint(1, 12))] for _ in range(500)]
    for labels in rows:
        expected = [("entity", first, last) for _, first, last in get_entities(labels)]
        assert entity_words(tags_of(labels, "BIO")) == expected
    for scheme, inside, alone in (("BMES", "M", "S"), ("BMEWO", "M", "W"), ("BILOU", "I", "U")):
        end = "L" if scheme == "BILOU" else "E"
        for _ in range(500):
            tags = [rng.choice(["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in "ab")]) for _ in range(9)]
            names = {"I": inside, "S": alone, "E": end}
            labels = [names.get(tag[0], tag[0]) + tag[1:] for tag in tags]
            assert entity_words(tags_of(labels, scheme)) == get_entities(tags)


def test_figures_of_kindless_labels_are_of_one_kind() -> None:
    gold = [Row({"words": ["a", "b", "c"], "labels": ["B", "I", "O"]}, "row 1")]
    task = TagTask().fitted(gold)
    figures = span_figures([tags_of(["B", "I", "O"], task.scheme)], [tags_of(["B", "O", "O"], task.scheme)])
    assert list(figures["labels"]) == ["entity"]
    assert figures["f1"] == 0.0
    assert TagTask(TagOptions(scheme="BIO")).fitted(gold).labels == ("B", "I", "O")


def test_spans_become_the_labels_of_bmes() -> None:
    row = Row({"text": "Dr Ann Lee, Rome", "spans": [{"start": 0, "end": 10, "label": "x"}, _span(12, 16, "y")]}, "r")
    for scheme, alone in (("BMES", "S"), ("BMEWO", "W")):
        task = TagTask(TagOptions(scheme=scheme)).fitted([row])  # type: ignore[arg-type]
        assert task.words(row).labels == ["B-x", "M-x", "E-x", "O", f"{alone}-y"]


@pytest.mark.parametrize(
    ("odd", "others", "message"),
    [
        ("0", ["B-PER", "I-PER", "O"], "word 1, 'i', has the label '0' .nearly BIO: the other labels are B-, I- or O"),
        ("o", ["B-PER", "O"], "has the label 'o' .nearly BIO"),
        ("newdoc", ["B-PER", "I-PER", "O"], "has the label 'newdoc' .nearly BIO"),
        ("L-PER", ["B-PER", "I-PER", "E-PER", "O"], "has the label 'L-PER' .nearly BIOES"),
        ("B", ["B-PER", "I-PER", "B-LOC", "O"], "has the label 'B' .nearly BIO"),
        ("[CLS]", ["B-PER", "I-PER", "B-LOC", "O"], "has the label '\\[CLS\\]' .nearly BIO"),
    ],
)
def test_a_stray_label_is_named_with_its_place(odd: str, others: list[str], message: str) -> None:
    rows = [
        Row({"words": ["w"] * len(others), "labels": others}, "a.conll:1"),
        Row({"words": ["i", "w"], "labels": [odd, "O"]}, "a.conll:7"),
    ]
    with pytest.raises(UserError, match=f"a.conll:7: .*{message}"):
        TagTask().fitted(rows)
    assert odd in TagTask(TagOptions(scheme="IO")).fitted(rows).labels  # who means it can say so
    with pytest.raises(UserError, match=r"is none of it.*a.conll:7: word 1"):
        TagTask(TagOptions(scheme="BIOES" if odd == "L-PER" else "BIO")).fitted(rows)


def test_a_conll_file_with_a_stray_digit(tmp_path: Path) -> None:
    (tmp_path / "stray.conll").write_text("Anna B-PER\nBerg I-PER\nbor O\n\ni 0\nLund B-LOC\n")
    with pytest.raises(UserError, match=r"stray.conll:5: word 1, 'i', has the label '0'"):
        TagTask().fitted(read_rows(tmp_path / "stray.conll"))


@pytest.mark.parametrize("scheme", ["auto", "BIO"])
def test_rows_with_a_stray_tag_are_left_out_and_counted_where_bad_rows_are(scheme: Any, tmp_path: Path) -> None:
    table = "Anna B-PER\nBerg I-PER\nbor O\n\ni 0\nLund B-LOC\n\nOslo B-LOC\nby O\n\nan newdoc\n"
    (tmp_path / "stray.conll").write_text(table)
    task, said = TagTask(TagOptions(scheme=scheme)), list[str]()
    read = RowSet.read(tmp_path / "stray.conll", task, True, TableOptions(say=said.append))
    assert [row.values["words"] for row in read.rows] == [["Anna", "Berg", "bor"], ["Oslo", "by"]]
    assert read.skipped == 2
    assert said[-1].startswith("2 of 4 rows left out: ")
    for place in ("stray.conll:5: word 1, 'i', has the label '0'", "stray.conll:11: word 1, 'an'"):
        assert place in said[-1]
    assert read.fitted().task.labels == ("B-LOC", "B-PER", "I-PER", "O")
    with pytest.raises(UserError, match=r"stray.conll:5: word 1.*\(skip_bad=True leaves such rows out\)"):
        RowSet.read(tmp_path / "stray.conll", task, False, TableOptions()).fitted()


def test_numbers_as_labels_are_noticed() -> None:
    rows = [Row({"words": ["a", "b", "c"], "labels": [0, 3, 4]}, "row 1")]
    with pytest.warns(UserWarning, match="the labels are numbers .0, 3, 4, ….* give their names"):
        TagTask().fitted(rows)


def test_a_foreign_tagger_with_labels_that_no_word_has(tmp_path: Path) -> None:
    """X, [CLS] and [SEP] are never decided, so that two words of an entity stay one."""
    torch.manual_seed(0)
    names = ["X", "O", "B-PER", "I-PER", "[CLS]", "[SEP]"]
    numbers = {name: index for index, name in enumerate(names)}
    config = hugging_face_config(tiny_config(), id2label=dict(enumerate(names)), label2id=numbers)
    theirs = BertForTokenClassification(config)
    with torch.no_grad():
        theirs.classifier.weight.zero_()
        theirs.classifier.bias.copy_(torch.tensor([9.0, 0, 1, 3, 9, 9]))  # X is likeliest everywhere, then I-PER
    theirs.save_pretrained(tmp_path)
    tiny_tokenizer().save(tmp_path)
    model = bw.load(tmp_path)
    (tagging,) = model.predict([{"text": "red dog"}])
    assert tagging.labels == ["I-PER", "I-PER"]
    found: Any = model.tag("red dog")
    assert [(entity.label, entity.text) for entity in found] == [("PER", "red dog")]
    of_words = torch.tensor([0.0, 1, 3]).softmax(-1)
    assert tagging.probabilities[0] == pytest.approx(of_words[2].item(), abs=1e-5)


def _span(start: int, end: int, label: str = "device", **more: Any) -> dict[str, Any]:
    return {"start": start, "end": end, "label": label, **more}


def _row(text: str, *spans: dict[str, Any]) -> Row:
    return Row({"text": text, "spans": list(spans)}, "e.jsonl:1")


@pytest.mark.parametrize(
    ("text", "start", "end", "message"),
    [
        ("🙂🙂 my router is broken", 8, 14, "is 'uter i', but says 'router'; it is at character 6: .*UTF-16 units"),
        ("🙂🙂 my router", 8, 14, "from 8 to 14 in a text of 12 characters; it is at character 6: .*UTF-16 units"),
        (
            "é my router is broken",
            6,
            12,
            "is 'outer ', but says 'router'; it is at character 5: the places count bytes",
        ),
        ("a\r\nmy router is broken", 5, 11, "but says 'router'; the places count a line's end"),
        ("my router is broken", 4, 9, "the span from 4 to 9 is 'outer', but says 'router'$"),
    ],
)
def test_a_span_that_is_not_its_own_text(text: str, start: int, end: int, message: str) -> None:
    with pytest.raises(UserError, match=f"e.jsonl:1: .*{message}"):
        TagTask().check(_row(text, _span(start, end, text="router")))
    place = text.index("router")
    assert "B-device" in (TagTask().words(_row(text, _span(place, place + 6, text="router"))).labels or ())


def test_spans_inside_words_are_counted_and_shown() -> None:
    inside = _row("🙂 the modem is off", _span(7, 10), _span(13, 16))
    with pytest.warns(UserWarning, match="2 spans begin or end inside .* e.jsonl:1: 'ode' in 'modem'; .*UTF-16"):
        TagTask().fitted([inside])
    task = TagTask().fitted([_row("the modem is off", _span(4, 9))])
    with pytest.warns(UserWarning, match="1 spans begin or end inside .* 'ode' in 'modem'$"):
        task.metrics(task_predictions(task, "the modem is off"), [_row("the modem is off", _span(5, 8))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TagTask().fitted([_row("the modem is off", _span(3, 10))])  # blanks around a word are not of it


def task_predictions(task: TagTask, text: str) -> list[Any]:
    row = Row({"text": text}, "row 1")
    return [task.decode([], [], row)]
