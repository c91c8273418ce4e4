"""CoNLL columns and SQuAD json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bothways.data.tables import read_rows
from bothways.errors import UserError


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_conll_columns(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, "a.conll", "-DOCSTART- O\n\nRome B-LOC\nis O\n\n\n# O\nof O\n"))
    assert [row.values["words"] for row in rows] == [["Rome", "is"], ["#", "of"]]
    assert rows[0].values["labels"] == ["B-LOC", "O"]
    assert [row.source.rpartition(":")[2] for row in rows] == ["3", "7"]
    rows = read_rows(write(tmp_path, "a.conll", "# O\nof O\n-DOCSTART- X\nnew O\n"))
    assert [row.values["words"] for row in rows] == [["#", "of"], ["new"]]
    rows = read_rows(write(tmp_path, "b.bio", "# a comment\nNew York\tNNP\tB-LOC\nx\tNN\tO"))
    assert rows[0].values == {
        "words": ["New York", "x"],
        "labels": ["B-LOC", "O"],
        "1": ["New York", "x"],
        "2": ["NNP", "NN"],
        "3": ["B-LOC", "O"],
    }
    with pytest.raises(UserError, match=r"c.conll:2: 3 columns, expected 2"):
        read_rows(write(tmp_path, "c.conll", "a O\nb c O\n"))
    with pytest.raises(UserError, match=r"c.conll:1: 1 columns, expected 2"):
        read_rows(write(tmp_path, "c.conll", "word\n"))


def test_conllu_words_are_counted_as_they_say(shared_data: Path) -> None:
    """Every line with a whole number is a word; multiword tokens and empty nodes are none."""
    path = shared_data / "ud-english-ewt" / "dev.conllu"
    rows = read_rows(path)
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if "\t" in line]
    expected = [(line[1], line[3]) for line in lines if line[0].isdigit()]
    found = [pair for row in rows for pair in zip(row.values["words"], row.values["upos"], strict=True)]
    assert len(rows) == 2001
    assert found == expected
    assert rows[0].values["labels"] == rows[0].values["upos"]


def test_squad_files(shared_data: Path, tmp_path: Path) -> None:
    rows = read_rows(shared_data / "squad" / "dev-v2.0.json")
    assert len(rows) == 2471
    assert all(row.values["context"] and isinstance(row.values["answers"], list) for row in rows)
    article = {"title": "t", "paragraphs": [{"context": "a b", "qas": [{"id": "1", "question": "?", "answers": []}]}]}
    path = write(tmp_path, "q.json", json.dumps({"data": [article, article]}))
    with pytest.raises(
        UserError, match=r"data\[1\].paragraphs\[0\].qas\[0\]: the id '1' stands twice, first at .*data\[0\]"
    ):
        read_rows(path)
    with pytest.raises(UserError, match=r"q.json:2: not valid JSON: .* at character"):
        read_rows(write(tmp_path, "q.json", '{"data":\n [}'))
    for odd in ({"is_impossible": "false", "answers": []}, {"is_impossible": True, "answers": [{"text": "a"}]}):
        asked = {"title": "t", "paragraphs": [{"context": "a", "qas": [{"id": "1", "question": "?", **odd}]}]}
        with pytest.raises(UserError, match=r"qas\[0\]: is_impossible is .* beside answers"):
            read_rows(write(tmp_path, "q.json", json.dumps({"data": [asked]})))
    with pytest.raises(UserError, match="expected an object with a list 'data'"):
        read_rows(write(tmp_path, "q.json", "[]"))
    with pytest.raises(UserError, match=r"paragraphs\[0\]: expected an object with a list 'qas'"):
        read_rows(write(tmp_path, "q.json", json.dumps({"data": [{"paragraphs": [{"context": "x"}]}]})))
