"""What is typed next: every `next:` line is pasted into a shell's reading of it, in folders whose names have blanks and
quotes; and the same command again, of every verb with `--out`."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bothways.cli import main
from tests.helpers import WORDS

Give = Callable[..., str]
FAST = ["--steps", "2", "--batch-size", "4"]
ROWS = {
    "classify": [{"text": "the dog runs", "label": "animal"}, {"text": "the old house", "label": "thing"}],
    "similar": [{"text": "the dog runs", "pair": "a dog runs"}, {"text": "the old house", "pair": "a big house"}],
    "answer": [{"question": "the dog ?", "context": "the dog runs in the house", "answers": ["in the house"]}] * 2,
    "tag": [{"words": ["the", "dog", "runs"], "labels": ["O", "B-animal", "O"]}] * 2,
    "choose": [{"text": "the dog", "choices": ["runs", "house"], "label": 0}] * 2,
    "instruct": [{"question": "the dog ?", "answer": "runs"}] * 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("it's") / "my files"


@pytest.fixture
def give(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Give:
    """Give a command's words in the folder; returns what it printed."""
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)

    def run(*words: str, code: int = 0) -> str:
        assert main(list(words)) == code, (words, capsys.readouterr())
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    return run


def next_words(output: str) -> list[str]:
    """The words behind `next: bothways`, as a shell cuts them."""
    (line,) = re.findall(r"^next: (.*)$", output, re.MULTILINE)
    words = shlex.split(line)
    assert words[0] == "bothways"
    return words[1:]


def write_texts(folder: Path) -> None:
    """Twelve files of three documents each, parted by empty lines, and one that is not UTF-8."""
    folder.mkdir(exist_ok=True)
    for number in range(12):
        lines = [" ".join(WORDS[(number + k) % 7 :: 3]) + "." for k in range(6)]
        (folder / f"{number}.txt").write_text("\n\n".join("\n".join(lines[k : k + 2]) for k in (0, 2, 4)) + "\n")
    (folder / "brief.txt").write_bytes(b"K\xf6nig\n")


def test_the_whole_way_by_pasting(folder: Path, give: Give) -> None:
    write_texts(folder / "a b's")
    reading = ["--documents", "blank-line", "--skip-bad"]
    said = give("tokenizer", "a b's/*.txt", "--vocab-size", "120", "--out", "the vocabulary", *reading)
    assert next_words(said)[1] == "a b's/*.txt"
    said = give(*next_words(said))
    assert re.search(r"^store: 36 documents", said, re.MULTILINE)  # not 12: the options of reading came along
    size = ["--size", "tiny", "--steps", "2", "--tokens-per-step", "128", "--sequence-length", "16"]
    words = next_words(said)
    words[words.index("--size") : words.index("--size") + 2] = size
    said = give(*words)
    assert "[MASK]" in next_words(said)[2]
    give(*next_words(said))
    said = give("pretrain", "store", "--objective", "causal", "--out", "from left", *size)
    assert next_words(said)[:2] == ["generate", "from left"]
    give(*next_words(said))
    assert (
        next_words(give("prepare", "a b's", "--tokenizer", "the vocabulary", "--out", "third", *reading))[-1] == "run2"
    )


@pytest.mark.parametrize("task", ROWS)
def test_what_is_typed_after_finetuning(folder: Path, give: Give, task: str) -> None:
    """Uses what the test above has made."""
    table = folder / f"{task} rows.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in ROWS[task]))
    model = "from left" if task == "instruct" else "run"
    out = f"{task} 'model'"
    said = give("finetune", task, "--model", model, "--train", table.name, "--out", out, *FAST)
    words = next_words(said)
    assert words[1] == out
    give(*words)


def test_the_same_again_is_done_already_and_what_differs_is_said(folder: Path, give: Give) -> None:
    """Uses what the tests above have made: of each verb, what is said of the same and of another command."""
    reading = ["--documents", "blank-line", "--skip-bad"]
    tokenizer = ["tokenizer", "a b's/*.txt", "--vocab-size", "120", "--out", "the vocabulary", *reading]
    prepare = ["prepare", "a b's/*.txt", "--tokenizer", "the vocabulary", "--out", "store", *reading]
    for command in (tokenizer, prepare):
        again = give(*command)
        assert "done already" in again
        assert next_words(again)[-1] in ("--skip-bad", "run")
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
    """Uses the classifier that a test above has made."""
    model, rows = "classify 'model'", "classify rows.jsonl"
    for command, option, out in (
        (["predict", model, rows, "--out", "all of it.csv"], "--out", "all of it.csv"),
        (["evaluate", model, rows, "--predictions", "p.csv"], "--predictions", "p.csv"),
        (["classify", model, "--in", rows, "--out", "labelled.jsonl"], "--out", "labelled.jsonl"),
        (["embed", model, "--in", rows, "--out", "vectors.npy"], "--out", "vectors.npy"),
    ):
        give(*command)
        (folder / out).write_bytes(b"mine")
        said = give(*command, code=2)
        assert f"{option}: {out} is there already; --overwrite replaces it, or choose another --out" in said
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


def test_comparing_finds_out_that_out_is_refused_before_it_trains(
    folder: Path, give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bothways.baselines import classify, language

    def never(*arguments: object) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(classify, "compare_classifiers", never)
    monkeypatch.setattr(language, "compare_language_models", never)
    rows = ["--train", "classify rows.jsonl", "--eval", "classify rows.jsonl"]
    said = give("compare", "classify", "--model", "run", *rows, "--out", "classify 'model'", *FAST, code=2)
    assert "--eval was not given, now classify rows.jsonl; --overwrite" in said
    said = give("compare", "lm", "store", "--out", "from left", "--size", "tiny", "--seed", "1", code=2)
    assert "holds a run that was made otherwise" in said
