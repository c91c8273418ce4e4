"""Every task on the command line: fine-tune, evaluate, predict, ask, compare."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import Run
from tests.tasks import test_answer, test_choose_and_similar, test_classify, test_tag

FAST = ["--lr", "0.002", "--batch-size", "8", "--dropout", "0", "--sequence-length", "48"]


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def tuned(bothways: Run, pretrained: Path, tmp_path: Path) -> Callable[..., Path]:
    def tune(task: str, rows: list[dict[str, object]], *more: object) -> Path:
        table = write(tmp_path / f"{task}.jsonl", rows)
        tables = ["--train", table, "--eval", table, "--out", tmp_path / task]
        code, out, err = bothways("finetune", task, "--model", pretrained, *tables, *FAST, *more)
        assert code == 0, err
        assert f"{tmp_path / task}: model in" in out
        assert (tmp_path / task / "report.html").exists()
        return tmp_path / task

    return tune


def test_answers(tuned: Callable[..., Path], bothways: Run, tmp_path: Path) -> None:
    run = tuned("answer", test_answer.ROWS, "--epochs", 24, "--overlap", 8, "--lr", 0.004)
    row = test_answer.ROWS[5]
    code, out, _ = bothways("answer", run, row["question"], row["context"], "--json")
    assert code == 0
    answer = json.loads(out)
    assert answer["text"] == row["context"][answer["start"] : answer["end"]]
    (tmp_path / "context.txt").write_text(row["context"])
    assert answer["text"] in bothways("answer", run, row["question"], "--in", tmp_path / "context.txt")[1]
    # places are those of the file: a byte order mark and carriage returns are characters of it
    in_lines = "\ufeffNo more.\r\nAnd:\r" + row["context"].replace(" ", "\r\n") + "\r\n"
    (tmp_path / "crlf.txt").write_bytes(in_lines.encode())
    code, out, _ = bothways("answer", run, row["question"], "--in", tmp_path / "crlf.txt", "--json")
    answer = json.loads(out)
    assert answer["text"]
    assert answer["text"] == in_lines[answer["start"] : answer["end"]]
    code, _, err = bothways("answer", run, row["question"])
    assert (code, err.count("\n")) == (2, 1)
    squad = {
        "data": [
            {"paragraphs": [{"context": one["context"], "qas": [{**one, "id": str(n)}]}]}
            for n, one in enumerate(test_answer.ROWS)
        ]
    }
    (tmp_path / "squad.json").write_text(json.dumps(squad))
    code, out, _ = bothways("evaluate", run, tmp_path / "squad.json", "--json", "--predictions", tmp_path / "p.csv")
    assert json.loads(out) == json.loads((run / "evaluation.json").read_text())
    assert len((tmp_path / "p.csv").read_text(encoding="utf-8-sig").splitlines()) == 37


def test_tags(tuned: Callable[..., Path], bothways: Run, tmp_path: Path) -> None:
    run = tuned("tag", test_tag.ROWS, "--epochs", 8, "--overlap", 4)
    code, out, _ = bothways("tag", run, "the old cat runs in the green", "--json")
    assert code == 0
    assert [one["text"] for one in json.loads(out)["entities"]] == ["old cat", "green"]
    lines = "\n".join(
        "\n".join(f"{word}\t{label}" for word, label in zip(row["words"], row["labels"], strict=True)) + "\n"
        for row in test_tag.ROWS
    )
    (tmp_path / "rows.conll").write_text(lines)
    (tmp_path / "rows.testa").write_text(lines + "\nodd\n")
    code, _, err = bothways("evaluate", run, tmp_path / "rows.testa", "--skip-bad", "--format", "conll")
    assert (code, "left out" in err, "1 columns, expected 2" in err) == (0, True, True)
    code, out, _ = bothways("evaluate", run, tmp_path / "rows.conll")
    assert out.startswith("f1 1.000")
    code, out, err = bothways("evaluate", run, tmp_path / "rows.conll", "--question-column", "x")
    assert (code, "--question-column: tag has no such column" in err) == (2, True)
    code, out, _ = bothways("predict", run, tmp_path / "rows.conll", "--out", tmp_path / "p.jsonl")
    assert json.loads((tmp_path / "p.jsonl").read_text().splitlines()[0])["predicted"].startswith("beast: red dog")


def test_choices_and_predictions(tuned: Callable[..., Path], bothways: Run, tmp_path: Path) -> None:
    run = tuned("choose", test_choose_and_similar.CHOICES, "--epochs", 20)
    unlabelled = write(
        tmp_path / "new.jsonl",
        [{k: v for k, v in row.items() if k != "label"} for row in test_choose_and_similar.CHOICES],
    )
    code, out, _ = bothways("predict", run, unlabelled, "--out", tmp_path / "p.csv")
    assert code == 0
    assert "8 predictions" in out
    with (tmp_path / "p.csv").open(encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    assert [line["predicted"] for line in table] == [row["choices"][1] for row in test_choose_and_similar.CHOICES]  # type: ignore[index]
    rows = [{**row, "id": n} for n, row in enumerate(test_choose_and_similar.CHOICES)]
    numbered = write(tmp_path / "numbered.jsonl", rows)
    assert json.loads(bothways("predict", run, numbered)[1].splitlines()[3])["id"] == 3
    code, _, err = bothways("predict", run, unlabelled, "--out", tmp_path / "p.xlsx")
    assert (code, "expected a file that ends in .csv or .jsonl" in err) == (2, True)


def test_vectors_and_neighbours(tuned: Callable[..., Path], bothways: Run, tmp_path: Path) -> None:
    run = tuned("similar", test_choose_and_similar.PAIRS, "--epochs", 12)
    (tmp_path / "lines.txt").write_text("a house sleeps.\n\nthe dog runs.\na bird eats.\n")
    code, out, _ = bothways("similar", run, "a dog runs.", "--in", tmp_path / "lines.txt", "--top-k", 2, "--json")
    assert code == 0
    found = [json.loads(line) for line in out.splitlines()]
    assert len(found) == 2
    assert (found[0]["place"].rpartition(":")[2], found[0]["text"]) == ("3", "the dog runs.")
    assert bothways("embed", run, "--in", tmp_path / "lines.txt", "--out", tmp_path / "v.npy")[0] == 0
    vectors = np.load(tmp_path / "v.npy")
    assert vectors.shape == (4, 32)
    assert np.isnan(vectors[1]).all()
    vectors = vectors[[0, 2, 3]]
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    (tmp_path / "gaps.txt").write_text("\na house sleeps.\n \n\n")
    code, _, err = bothways("embed", run, "--in", tmp_path / "gaps.txt", "--out", tmp_path / "gaps.npy")
    gaps = np.load(tmp_path / "gaps.npy")
    assert np.isnan(gaps[[0, 2, 3]]).all()
    assert np.allclose(gaps[1], vectors[0], atol=1e-5)
    assert "gaps.npy has NaN for 3 empty lines (1, 3, 4)" in err
    code, out, _ = bothways("embed", run, "a house sleeps.")
    assert np.allclose(json.loads(out)["embedding"], vectors[0], atol=1e-5)
    assert bothways("embed", run, "x", "--out", tmp_path / "v.txt")[0] == 2
    (tmp_path / "letters.csv").write_text('text\n"a house\n\nsleeps."\n')
    code, out, _ = bothways("similar", run, "a house", "--in", tmp_path / "letters.csv")
    assert out.splitlines()[0].endswith("\ta house  sleeps."), out  # a match is a line
    bodies = write(
        tmp_path / "bodies.jsonl", [{"body": "a house sleeps.", "text": "no"}, {"body": "a dog.", "text": "no"}]
    )
    named = ("similar", run, "a house", "--text-column", "body", "--in")
    assert "a house sleeps." in bothways(*named, bodies)[1].splitlines()[0]
    code, _, err = bothways(*named, tmp_path / "lines.txt")
    assert (code, "--text-column body: " in err and "read line by line" in err) == (2, True)
    code, _, err = bothways("similar", run, "a house", "--in", write(tmp_path / "other.jsonl", [{"body": "a dog."}]))
    assert (code, err.endswith("no column 'text'; columns present: body (--text-column names one)\n")) == (2, True)
    state = json.loads((run / "model" / "bothways.json").read_text())
    own = shutil.copytree(run / "model", tmp_path / "own")  # the column that it was trained on is the usual one
    (own / "bothways.json").write_text(json.dumps({**state, "options": {**state["options"], "text_column": "body"}}))
    assert "a house sleeps." in bothways("similar", own, "a house", "--in", bodies)[1].splitlines()[0]
    table = write(tmp_path / "only.jsonl", [{"text": "a house\tsleeps."}])
    assert json.loads(bothways("embed", run, "--in", table)[1])["text"] == "a house\tsleeps."
    assert json.loads(bothways("similar", run, "a dog", "--in", table, "--json")[1])["place"] == f"{table}:1"


def test_a_tab_parts_a_pair_only_for_a_model_that_was_trained_on_pairs(
    tuned: Callable[..., Path], bothways: Run, tmp_path: Path
) -> None:
    (tmp_path / "lines.txt").write_text("the dog\ta cat\nthe house\n", encoding="utf-8")
    single = tuned("classify", test_classify.ROWS, "--epochs", 1)
    lines = bothways("classify", single, "--in", tmp_path / "lines.txt", "--json")[1].splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["the dog\ta cat", "the house"]
    for text in ("the dog a cat", "the dog\ta cat"):
        assert json.loads(bothways("classify", single, text, "--json")[1])["scores"] == json.loads(lines[0])["scores"]
    shutil.rmtree(single)
    pairs = [{**row, "pair": "a cat"} for row in test_classify.ROWS]
    paired = tuned("classify", pairs, "--epochs", 1, "--pair-column", "pair")
    code, _, err = bothways("classify", paired, "--in", tmp_path / "lines.txt", "--json")
    assert code == 2
    assert "was fine-tuned on pairs and never saw a single text, which text 2 is; give pairs" in err
    (tmp_path / "lines.txt").write_text("the dog\ta cat\n", encoding="utf-8")
    lines = bothways("classify", paired, "--in", tmp_path / "lines.txt", "--json")[1].splitlines()
    assert [json.loads(line)["text"] for line in lines] == [["the dog", "a cat"]]


def test_kinds_of_labels(tuned: Callable[..., Path], bothways: Run) -> None:
    numbers = [{**row, "label": len(row["text"]) / 30} for row in test_classify.ROWS]
    run = tuned("classify", numbers, "--epochs", 1, "--problem-type", "regression")
    assert float(bothways("classify", run, "the dog")[1].split("\t")[0]) < 10


def test_compare(bothways: Run, pretrained: Path, tmp_path: Path) -> None:
    table = write(tmp_path / "rows.jsonl", test_classify.ROWS)
    arguments = ["--model", pretrained, "--train", table, "--eval", table, "--out", tmp_path / "run", "--epochs", 20]
    code, out, err = bothways("compare", "classify", *arguments, *FAST, "--json")
    assert code == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["name"].split()[0] for line in lines] == ["majority", "perceptron", "word2vec", "BERT,"]
    assert lines[0]["accuracy"] == pytest.approx(81 / 111)
    assert all(line["accuracy"] > 0.9 for line in lines[1:])
    assert all(line["size_bytes"] > 0 and line["latency_ms"] > 0 for line in lines)
    out = bothways("compare", "classify", *arguments, *FAST)[1]
    assert "word2vec average + logistic" in out


def test_compare_explains_what_cannot_be_learnt(bothways: Run, pretrained: Path, tmp_path: Path) -> None:
    for rows, message in (
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "x"}], "every row has the label 'x'"),
        ([{"text": "!!", "label": "x"}, {"text": "??", "label": "y"}], "perceptron on bag of words: cannot learn"),
    ):
        table = write(tmp_path / "rows.jsonl", rows)  # type: ignore[arg-type]
        arguments = ["--model", pretrained, "--train", table, "--eval", table, "--out", tmp_path / "run"]
        code, _, err = bothways("compare", "classify", *arguments, "--steps", 1)
        assert (code, err.count("bothways: ")) == (2, 1)
        assert message in err


def test_outputs_are_tried_before_the_work(bothways: Run, pretrained: Path, tmp_path: Path) -> None:
    table = write(tmp_path / "rows.jsonl", [{"text": "the dog"}])
    for arguments, message in (
        (["predict", pretrained, table, "--out", tmp_path / "absent" / "p.csv"], "the folder"),
        (["predict", pretrained, table, "--out", tmp_path / "p.xlsx"], "ends in .csv or .jsonl"),
        (["predict", pretrained, table, "--out", table], "is the table itself"),
        (["evaluate", pretrained, table, "--predictions", tmp_path / "p.xlsx"], "ends in .csv"),
        (["embed", pretrained, "x", "--out", tmp_path], "ends in .npy"),
    ):
        code, _, err = bothways(*arguments)
        assert (code, err.count("\n")) == (2, 1), err
        assert message in err


def test_a_pretrained_model_is_measured_on_text(bothways: Run, pretrained: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the dog runs in the house.\nthe cat sleeps on the red house.\n" * 40)
    code, out, err = bothways("evaluate", pretrained, tmp_path / "text.txt", "--json")
    assert code == 0, err
    figures = json.loads(out)
    assert figures["perplexity"] == pytest.approx(np.exp(figures["mlm_loss"]))
    assert 0 <= figures["mlm_accuracy"] <= 1
    code, out, _ = bothways("prepare", tmp_path / "text.txt", "--tokenizer", pretrained, "--out", tmp_path / "store")
    assert code == 0
    code, _, err = bothways("evaluate", pretrained, tmp_path / "store")
    assert (code, "no held-out text to measure on; --validation 0.2 in preparing" in err) == (2, True)


def test_mistakes(bothways: Run, pretrained: Path, tmp_path: Path) -> None:
    table = write(tmp_path / "rows.jsonl", test_classify.ROWS)
    for arguments, message in (
        (["finetune", "--model", "x"], "begin with the task, one of classify, answer, tag, choose, similar"),
        (["finetune", "clasify", "--model", "x"], "unknown task 'clasify', did you mean 'classify'"),
        (
            ["finetune", "tag", "--model", pretrained, "--train", table, "--out", tmp_path / "r"],
            "no column 'spans' with the entities of 'text'",
        ),
        (["predict", pretrained, table], "this one has PretrainingHead and no task"),
        (["similar", pretrained, "x", "--in", tmp_path / "absent.txt"], "absent.txt: No such file"),
        (["compare", "tag"], "compare"),
    ):
        code, _, err = bothways(*arguments)
        assert code == 2, (arguments, err)
        assert err.count("\n") == 1
        assert message in err
