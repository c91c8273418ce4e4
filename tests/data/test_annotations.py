"""CoNLL columns and SQuAD json."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from bothways.data.tables import BadRow, TableOptions, read_rows, read_table
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


MULTI = "# id 52f1-aa\tdomain=en\nwhere _ _ O\nasus _ _ B-CORP\n\n# id 77c0-b1\tdomain=en\nred _ _ O\nbull _ _ B-CORP\n"
GERMEVAL = "#\tnews-site [2005-02-26]\n1\tAnna\tB-PER\tO\n2\tsagte\tO\tO\n\n#\tother [2006]\n1\tRom\tB-LOC\tO\n"


def test_comments_are_lines_with_other_columns_than_the_words(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, "multi.conll", MULTI))
    assert [(row.values["words"], row.values["labels"]) for row in rows] == [
        (["where", "asus"], ["O", "B-CORP"]),
        (["red", "bull"], ["O", "B-CORP"]),
    ]
    assert [row.source.rpartition(":")[2] for row in rows] == ["2", "6"]
    rows = read_rows(write(tmp_path, "germeval.conll", GERMEVAL))
    assert [row.values["2"] for row in rows] == [["Anna", "sagte"], ["Rom"]]
    # WNUT-17 has hashtags as words, at the head of a sentence too
    rows = read_rows(write(tmp_path, "tags.conll", "#tag\tO\n#\tB-x\n\n# \tO\nRome\tB-x\n"))
    assert [row.values["words"] for row in rows] == [["#tag", "#"], ["# ", "Rome"]]
    said: list[str] = []
    path = write(tmp_path, "new.conll", "# newdoc\nRome B-x\nis O\n\n# O\n#\tid='1'\nof O\n# #\n")
    rows = read_rows(path, options=TableOptions(say=said.append))
    assert [row.values["words"] for row in rows] == [["Rome", "is"], ["#", "#", "of", "#"]]
    assert said == [f"{path}: 1 lines that begin with # read as comments: no other line has their label"]


def test_conllu_comments_may_have_tabs(tmp_path: Path) -> None:
    words = "".join(f"{n}\t{word}\t_\tX\t_\t_\t_\t_\t_\t_\n" for n, word in enumerate(("a", "#"), 1))
    rows = read_rows(write(tmp_path, "a.conllu", f"#\tid='1'\n# a\tb\tc\td\te\tf\tg\th\ti\tj\n{words}"))
    assert rows[0].values["words"] == ["a", "#"]


def test_columns_in_files_of_any_name(tmp_path: Path) -> None:
    text = "EU NNP B-ORG\nrejects VBZ O\n\nRome NNP B-LOC\n"
    expected = [["EU", "rejects"], ["Rome"]]
    for name in ("a.txt", "eng.train", "eng.testa", "noname"):
        said: list[str] = []
        path = write(tmp_path, name, text)
        rows = read_rows(path, options=TableOptions(say=said.append))
        assert [row.values["words"] for row in rows] == expected
        assert said == [f"{path}: read as CoNLL columns"]
    (tmp_path / "eng.train.gz").write_bytes(gzip.compress(text.replace("\n", "\r").encode()))
    assert [row.values["words"] for row in read_rows(tmp_path / "eng.train.gz")] == expected
    odd = write(tmp_path, "odd.testb", text + "one\n")
    with pytest.raises(UserError, match=r"\.testb suffix; .* or format says what it is"):
        read_rows(odd)
    with pytest.raises(UserError, match=r"odd\.testb:5: 1 columns, expected 3"):
        read_rows(odd, options=TableOptions("conll"))
    with pytest.raises(UserError, match="format 'xml': expected one of csv, tsv, jsonl, parquet, conll, conllu, squad"):
        TableOptions("xml")  # type: ignore[arg-type]
    table = write(tmp_path, "rows", "a,b\n1,2\n")
    assert read_rows(table, options=TableOptions("csv"))[0].values == {"a": "1", "b": "2"}


def test_sentences_with_a_line_of_another_width_are_bad_rows(tmp_path: Path) -> None:
    path = write(tmp_path, "a.conll", "head\na B\n\nb O\nc O\n\nd O extra\ne\n\nf O\n")
    rows = read_table(path)
    assert [row.source.rpartition(":")[2] if isinstance(row, BadRow) else row.values["words"] for row in rows] == [
        "1",
        ["b", "c"],
        "7",
        ["f"],
    ]
    assert rows[0] == BadRow(f"{path}:1", "1 columns, expected 2: a word, …, its label")


ARRAYS = {
    "array": '[{"text": "a", "label": "x"},\n {"text": "b", "label": "y"}]',
    "data": '{"version": "1", "data": [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]}',
    "lines": '{"text": "a", "label": "x"}\n\n{"text": "b", "label": "y"}\n',
}


@pytest.mark.parametrize("name", ARRAYS)
def test_json_of_objects(name: str, tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, "a.json", ARRAYS[name]))
    assert [row.values for row in rows] == [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    place = {"array": "a.json[1]", "data": "a.json: data[1]", "lines": "a.json:3"}[name]
    assert rows[1].source == str(tmp_path / place)


def test_what_is_wrong_in_json_is_a_bad_row(tmp_path: Path) -> None:
    rows = read_table(write(tmp_path, "a.json", '[{"a": 1}, 5, {"a": 2}]'))
    assert rows[1] == BadRow(f"{tmp_path / 'a.json'}[1]", "expected an object, found int")
    rows = read_table(write(tmp_path, "b.json", '{"a": 1}\n{"a": \n{"a": 2}\n'))
    assert [isinstance(row, BadRow) for row in rows] == [False, True, False]
    asked = {"id": "1", "question": "?", "answers": []}
    qas = [asked, asked, 5, {**asked, "id": "2"}]
    squad = {"data": [{"paragraphs": [{"context": "c", "qas": qas}, {"context": "c"}]}, 7]}
    rows = read_table(write(tmp_path, "q.json", json.dumps(squad)))
    assert [isinstance(row, BadRow) for row in rows] == [False, True, True, False, True, True]
    with pytest.raises(UserError, match="the key 'a' stands twice"):
        read_rows(write(tmp_path, "c.json", '[{"a": 1, "a": 2}]'))


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
        read_rows(write(tmp_path, "q.json", "5"))
    with pytest.raises(UserError, match=r"paragraphs\[0\]: expected an object with a list 'qas'"):
        read_rows(write(tmp_path, "q.json", json.dumps({"data": [{"paragraphs": [{"context": "x"}]}]})))
