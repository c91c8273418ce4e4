"""The tables of the shipped models: the same bytes each time, and nothing in them that was to be kept back."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from bothways.tasks import TASKS
from bothways.train.evaluate import RowSet, TableOptions
from tests.helpers import Run
from tools import build_shipped
from tools.build_shipped import main


def squad(questions: int, context: str = "The cat is in the house.") -> dict[str, Any]:
    qas = [
        {"id": str(n), "question": f"where {n}?", "answers": [{"text": "house", "answer_start": 18}]}
        for n in range(questions)
    ]
    return {"data": [{"title": "t", "paragraphs": [{"context": context, "qas": qas}]}]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    rows = {
        "pairs-nli/mnli.train.jsonl": [
            {"premise": "a dog runs", "hypothesis": "a dog moves", "label": "entailment"},
            {"premise": "a dog runs", "hypothesis": "a cat runs", "label": "contradiction"},
        ],
        "pairs-nli/xnli.train.jsonl": [{"premise": "a dog runs", "hypothesis": "a dog moves", "label": "entailment"}],
        "pairs-medquad/train.jsonl.zst": [{"query": "what is a cold?", "positive": "an illness " * 100}],
        "text-english/wikinews-en.jsonl.zst": [
            {"title": "It rains", "text": "It rained\nin May."},
            {"title": "Nothing", "text": ""},
        ],
        "pairs-sts12-16/sts12-16.jsonl": [
            {"sentence1": f"a {split}", "sentence2": "b", "score": 2, "in_stsb": split}
            for split in ("train", "dev", "test", None)
        ],
    }
    for name in build_shipped.ENCODER_TEXTS:
        rows.setdefault(name, [{"title": "", "text": f"{name}: " + "a " * 9000}, {"title": "", "text": "kept back"}])
    for name, listed in rows.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in listed))
    for train, dev in build_shipped.QUESTION_SETS.values():
        for name in (train, dev):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(json.dumps(squad(9)))
    (folder / "qa-qed/train.json").write_text(json.dumps(squad(3, "a table " * 1000)))
    (folder / "wnut17").mkdir()
    for split in ("train", "dev"):
        (folder / "wnut17" / f"{split}.conll").write_text("Ada\tB-person\nsleeps\tO\n\nIt\tO\n\n")
    (folder / "stsbenchmark").mkdir()
    (folder / "stsbenchmark" / "sts-dev.csv").write_text('g\tf\ty\t1\t4.5\ta "dog\ta cat\tmore\n')
    return folder


def test_tables_are_the_same_each_time_and_hold_nothing_kept_back(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    scripts_folder: Path,
) -> None:
    monkeypatch.setattr(build_shipped, "decompressed", lambda raw, path: raw)  # the .zst of this test are plain
    monkeypatch.setattr("held_out.zstd_lines", lambda path: path.read_text().splitlines())
    monkeypatch.setattr("held_out.LAST_DOCUMENTS", 1)
    monkeypatch.setattr(build_shipped, "QAMR_QUESTIONS", 4)
    for name in ("one", "two"):
        assert main([str(data), "--out", str(tmp_path / name)]) == 0
    said = capsys.readouterr().out
    assert "answers-train: 0 questions of qed, 3 left out" in said
    assert "answers-train: 4 questions of qamr" in said
    assert "vectors-scores: 2 pairs, without 2 of STSbenchmark's dev and test" in said
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()}
        for name in ("one", "two")
    )
    assert one == two
    made = tmp_path / "one"
    pairs = [json.loads(line) for line in (made / "vectors-pairs.jsonl").read_text().splitlines()]
    assert [pair["text"] for pair in pairs] == ["a dog runs", "what is a cold?", "It rains"]
    assert pairs[2]["pair"] == "It rained in May."
    begin = json.loads(one["wikipedia-part-0.jsonl"])["text"]
    assert begin == ("wikipedia/part-0.jsonl.zst: " + "a " * 9000)[:2500]
    assert json.loads(one["text-english-fairytales.jsonl"])["text"].endswith("a " * 9000)
    assert b"kept back" not in b"".join(one.values())
    assert b"a dev" not in one["vectors-scores.jsonl"] + one["vectors-pairs.jsonl"]
    tables = {"answer": "answers-train.json", "tag": "entities-train.conll", "similar": "vectors-pairs.jsonl"}
    for task, table in tables.items():
        kind = TASKS[task]
        assert RowSet.read(str(made / table), kind.make(kind.Options()), False, TableOptions()).rows, task


def test_the_commands_are_of_verbs_that_there_are(data: Path, bothways: Run) -> None:
    for command in build_shipped.commands(data, data / "out", "start", "run", "mini"):
        program, verb, *words = shlex.split(command)
        if program == "python":
            assert (Path(__file__).parents[1] / verb).is_file()
        else:
            code, _, err = bothways(verb, *words, "--help")
            assert code == 0, err


def test_data_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scripts_folder: Path
) -> None:
    assert main([str(tmp_path / "no"), "--out", str(tmp_path / "out")]) == 2
    assert "wikipedia/part-0.jsonl.zst" in capsys.readouterr().err
