"""What is typed next: every `next:` line is pasted into a shell's reading of it, in folders whose names have blanks and
quotes; and the same command again, of every verb with `--out`."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bothways.cli import main
from tests.helpers import WORDS

Give = Callable[..., str]
READING = ["--documents", "blank-line", "--skip-bad"]
SMALL = ["--size", "tiny", "--steps", "2", "--tokens-per-step", "128", "--sequence-length", "16"]
FAST = ["--steps", "2", "--batch-size", "4"]
ROWS_FILE, MODEL = "some rows.jsonl", "my 'tickets'"
ROWS = {
    "classify": [{"text": "the dog runs", "label": "animal"}, {"text": "the old house", "label": "thing"}],
    "similar": [{"text": "the dog runs", "pair": "a dog runs"}, {"text": "the old house", "pair": "a big house"}],
    "answer": [{"question": "the dog ?", "context": "the dog runs in the house", "answers": ["in the house"]}] * 2,
    "tag": [{"words": ["the", "dog", "runs"], "labels": ["O", "B-animal", "O"]}] * 2,
    "choose": [{"text": "the dog", "choices": ["runs", "house"], "label": 0}] * 2,
    "instruct": [{"question": "the dog ?", "answer": "runs"}] * 2,
}


def run_in(folder: Path, *words: str, code: int = 0) -> str:
    """Give a command's words in a folder; returns what it printed, or, where it failed, what it complained of."""
    printed, complained = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complained):
        ended = main(list(words))
    assert ended == code, (words, printed.getvalue(), complained.getvalue())
    return complained.getvalue() if code else printed.getvalue()


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder in which the way was gone from text to a classifier by pasting each `next:` line; what was printed, by
    what was made."""
    folder = tmp_path_factory.mktemp("it's") / "my files"
    write_texts(folder / "a b's")
    said: dict[str, str] = {}
    vocabulary = ["tokenizer", "a b's/*.txt", "--vocab-size", "120", "--out", "the vocabulary", *READING]
    said["vocabulary"] = run_in(folder, *vocabulary)
    said["store"] = run_in(folder, *next_words(said["vocabulary"]))
    words = next_words(said["store"])
    words[words.index("--size") : words.index("--size") + 2] = SMALL
    said["run"] = run_in(folder, *words)
    said["causal"] = run_in(folder, "pretrain", "store", "--objective", "causal", "--out", "from left", *SMALL)
    (folder / ROWS_FILE).write_text("".join(json.dumps(row) + "\n" for row in ROWS["classify"]))
    said["classify"] = run_in(
        folder, "finetune", "classify", "--model", "run", "--train", ROWS_FILE, "--out", MODEL, *FAST
    )
    return folder, said


@pytest.fixture
def give(way: tuple[Path, dict[str, str]]) -> Give:
    return functools.partial(run_in, way[0])


@pytest.fixture
def folder(way: tuple[Path, dict[str, str]]) -> Path:
    return way[0]


def next_words(output: str) -> list[str]:
    """The words behind `next: bothways`, as a shell cuts them."""
    (line,) = re.findall(r"^next: (.*)$", output, re.MULTILINE)
    words = shlex.split(line)
    assert words[0] == "bothways"
    return words[1:]


def write_texts(folder: Path) -> None:
    """Twelve files of three documents each, parted by empty lines, and one that is not UTF-8."""
    folder.mkdir(parents=True)
    for number in range(12):
        lines = [" ".join(WORDS[(number + k) % 7 :: 3]) + "." for k in range(6)]
        (folder / f"{number}.txt").write_text("\n\n".join("\n".join(lines[k : k + 2]) for k in (0, 2, 4)) + "\n")
    (folder / "brief.txt").write_bytes(b"K\xf6nig\n")


def test_the_whole_way_by_pasting(way: tuple[Path, dict[str, str]], give: Give) -> None:
    said = way[1]
    assert next_words(said["vocabulary"])[1] == "a b's/*.txt"
    assert re.search(r"^store: 36 documents", said["store"], re.MULTILINE)  # not 12: the options of reading came along
    assert "[MASK]" in next_words(said["run"])[2]
    assert next_words(said["causal"])[:2] == ["generate", "from left"]
    for made in ("run", "causal", "classify"):
        assert give(*next_words(said[made]))


def test_a_new_store_leads_on_to_a_new_run(give: Give) -> None:
    """`run` is there already, of another store."""
    said = give("prepare", "a b's", "--tokenizer", "the vocabulary", "--out", "third", *READING)
    assert next_words(said)[-1] == "run2"


@pytest.mark.parametrize("task", ROWS)
def test_what_is_typed_after_finetuning(folder: Path, give: Give, task: str) -> None:
    table = folder / f"{task} and more.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in ROWS[task]))
    model = "from left" if task == "instruct" else "run"
    out = f'{task} "it\'s"'
    said = give("finetune", task, "--model", model, "--train", table.name, "--out", out, *FAST)
    words = next_words(said)
    assert words[1] == out
    give(*words)


def test_the_same_again_is_done_already_and_what_differs_is_said(folder: Path, tmp_path: Path) -> None:
    give = functools.partial(run_in, shutil.copytree(folder, tmp_path / "copy"))
    folder = tmp_path / "copy"
    tokenizer = ["tokenizer", "a b's/*.txt", "--vocab-size", "120", "--out", "the vocabulary", *READING]
    prepare = ["prepare", "a b's/*.txt", "--tokenizer", "the vocabulary", "--out", "store", *READING]
    for command in (tokenizer, prepare):
        again = give(*command)
        assert "done already" in again
        assert next_words(again)[-1] in ("store", "run")
    said = give(*[word.replace("120", "110") for word in tokenizer], code=2)
    assert "the vocabulary holds a vocabulary that was made otherwise: --vocab-size was 120, now 110; --overw" in said
    (folder / "a b's" / "new.txt").write_text("the dog runs\n")
    for command, what in ((tokenizer, "a vocabulary"), (prepare, "a store")):
        assert f"holds {what} that was made otherwise: a b's/new.txt is new; --overwrite" in give(*command, code=2)
    assert "done already" not in give(*tokenizer, "--overwrite")
    assert "a b's/new.txt is new; the vocabulary is another; --overwrite" in give(*prepare, code=2)
    give(*prepare, "--overwrite")
    give(*prepare)


def test_tables_and_exports_again(folder: Path, give: Give) -> None:
    model, rows = MODEL, ROWS_FILE
    for command, option, out in (
        (["predict", model, rows, "--out", "all of it.csv"], "--out", "all of it.csv"),
        (["evaluate", model, rows, "--predictions", "p.csv"], "--predictions", "p.csv"),
        (["classify", model, "--in", rows, "--out", "labelled.jsonl"], "--out", "labelled.jsonl"),
        (["embed", model, "--in", rows, "--out", "vectors.npy"], "--out", "vectors.npy"),
    ):
        give(*command)
        (folder / out).write_bytes(b"mine")
        said = give(*command, code=2)
        assert f"{option}: {out} is there already; --overwrite replaces it, or choose another {option}" in said
        assert (folder / out).read_bytes() == b"mine"
        give(*command, "--overwrite")
        assert (folder / out).read_bytes() != b"mine"
    assert "would be removed" in give("classify", model, "--in", rows, "--out", rows, "--overwrite", code=2)
    export = ["export", "sentence-transformers", model, "--out", "for others"]
    give(*export)
    assert "for others: done already" in give(*export)
    assert "made otherwise: --pooling was not given, now cls; --overw" in give(*export, "--pooling", "cls", code=2)
    give(*export, "--pooling", "cls", "--overwrite")
    (folder / "for others" / "letter.txt").write_text("kept")
    assert "holds something else (letter.txt)" in give(*export, "--overwrite", code=2)


def test_an_explanation_replaces_an_earlier_one_alone(folder: Path, give: Give) -> None:
    for name in ("page.html", "a.svg", "a.png"):
        explain = ["explain", "run", "the dog", "--out", name]
        give(*explain)
        give(*explain)
        (folder / name).write_bytes(b"mine")
        assert f"--out: {name} is there already; --overwrite" in give(*explain, code=2)
        give(*explain, "--overwrite")
        assert (folder / name).read_bytes() != b"mine"


def test_a_failed_command_leaves_no_folder(folder: Path, give: Give, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "onnx" in give("export", "onnx", "run", "--out", "onnx", code=2)
    assert "--tensorboard: needs" in give("pretrain", "store", "--out", "tb", "--tensorboard", "--size", "tiny", code=2)
    assert not (folder / "onnx").exists()
    assert not (folder / "tb").exists()


def test_comparing_finds_out_that_out_is_refused_before_it_trains(give: Give, monkeypatch: pytest.MonkeyPatch) -> None:
    from bothways.baselines import classify, language

    def never(*arguments: object) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(classify, "measure_classifier", never)
    monkeypatch.setattr(language, "measure_language_model", never)
    rows = ["--train", ROWS_FILE, "--eval", ROWS_FILE]
    said = give("compare", "classify", "--model", "run", *rows, "--out", MODEL, *FAST, code=2)
    assert f"--eval was not given, now {ROWS_FILE}; --overwrite" in said
    said = give("compare", "lm", "store", "--out", "from left", "--size", "tiny", "--seed", "1", code=2)
    assert "holds a run that was made otherwise" in said
