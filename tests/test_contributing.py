"""A new task, objective, verb, family or kernel is what CONTRIBUTING.md says and no more: its steps, carried out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bothways.data.prepare import PrepareOptions, prepare
from tests.contributing import carry_out, copy_package, copy_tests
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_tokenizer

pytestmark = pytest.mark.slow

MORE_OF_THE_TASK = """
from bothways.verbs.bulk import TableArguments, table_into_file
from bothways.verbs.column_arguments import column_arguments
from bothways.verbs.flags import help_texts

print(probabilities)
print(help_texts(column_arguments())["spam_column"])
assert main(["evaluate", "spam", "unwanted.jsonl", "--spam-column", "unwanted", "--json"]) == 0
table_into_file("spam", TableArguments(model="spam", input="mail.jsonl", out="all.parquet"), [])  # as a verb would
"""

CALLED = """
import torch
from bothways.model.attention import choose_kernel
from bothways.model.attention_mask import BOTH_WAYS
with torch.no_grad():
    print(choose_kernel(torch.zeros(1, 1, 8), BOTH_WAYS, 0.0).__name__)
"""


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_new_task_is_a_file_and_a_line_and_goes_all_the_way(tmp_path: Path, pretrained: Path) -> None:
    copy_package(tmp_path)
    write(tmp_path / "mail.jsonl", [{"text": "the dog runs", "spam": 1}, {"text": "the old house", "spam": 0}] * 8)
    write(tmp_path / "unwanted.jsonl", [{"text": "the dog runs", "unwanted": n} for n in (0, 1)])
    done = carry_out("A new task", tmp_path, after=MORE_OF_THE_TASK)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "accuracy 1.000"
    assert "next: bothways predict spam mail.jsonl" in lines
    assert "Calibration" in (tmp_path / "spam" / "report.html").read_text()
    predicted = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [line["predicted"] for line in predicted] == [True, False] * 8
    of_table = pq.read_table(tmp_path / "all.parquet")["spam_probability"].to_pylist()
    assert [probability > 0.5 for probability in of_table] == [True, False] * 8
    at = lines.index("1 for an unwanted text, else 0")  # what --help says of --spam-column
    assert 0 < json.loads(lines[at - 1])[0] < 1
    assert json.loads(lines[at + 1]) == {"accuracy": 0.5}


def test_a_new_objective_is_a_file_and_a_line_and_pretrains(tmp_path: Path) -> None:
    copy_package(tmp_path)
    write_corpus(tmp_path / "corpus.jsonl", documents=100)
    prepare([str(tmp_path / "corpus.jsonl")], tiny_tokenizer(), tmp_path / "store", PrepareOptions(validation=0.2))
    done = carry_out("A new objective", tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert list(figures) == ["follows_loss", "follows_accuracy"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["eval_follows_loss"] == pytest.approx(figures["follows_loss"], rel=1e-4)
    assert min(line["loss"] for line in lines if "loss" in line) > 0
    assert "follows accuracy" in (tmp_path / "run" / "report.html").read_text()
    assert "next: bothways fill run 'a [MASK] in a text'" in done.stdout


def test_a_new_verb_is_a_file_and_a_line(tmp_path: Path, pretrained: Path) -> None:
    copy_package(tmp_path)
    (tmp_path / "sentences.txt").write_text("the old house\n")
    done = carry_out("A new verb", tmp_path)
    assert done.returncode == 0, done.stderr
    ids, in_json, *shown = done.stdout.splitlines()
    found = json.loads(in_json)
    assert list(found) == ["text", "pieces", "ids"]
    assert len(found["pieces"]) == len(found["ids"]) >= 3
    assert ids.split()[0] == found["pieces"][0] == "the"
    assert ids.split()[1] == str(found["ids"][0])
    assert shown[0].startswith("usage: bothways pieces")
    assert any("--ids" in line and "their numbers in the vocabulary, too" in line for line in shown)


@pytest.mark.slow
def test_a_new_family_is_a_file_and_three_lines_and_computes_as_transformers_does(tmp_path: Path) -> None:
    copy_package(tmp_path)
    copy_tests(tmp_path, "model/test_families.py")
    write_corpus(tmp_path / "corpus.jsonl", documents=20)
    prepare([str(tmp_path / "corpus.jsonl")], tiny_tokenizer(), tmp_path / "store", PrepareOptions())
    done = carry_out("A new family", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d\d? passed", done.stdout, re.MULTILINE), done.stdout
    configs = [json.loads(path.read_text()) for path in (tmp_path / "run").rglob("config.json")]
    assert {config["architectures"][0] for config in configs} == {"ErnieForMaskedLM"}


def test_a_new_kernel_is_a_file_and_a_line_and_agrees_with_the_reference(tmp_path: Path, pretrained: Path) -> None:
    copy_package(tmp_path)
    copy_tests(tmp_path, "model/test_attention.py")
    done = carry_out("A new kernel", tmp_path, after=CALLED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d\d? passed", done.stdout, re.MULTILINE), done.stdout
    assert done.stdout.splitlines()[-1] == "attend_singly"
