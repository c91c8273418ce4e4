"""The command line as a user meets it: the whole way on small files, and every mistake in one line with exit code 2."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

from bothways import cli
from bothways.cli import main
from bothways.native.loading import library
from bothways.verbs import VERBS
from bothways.version import __version__
from tests.data.test_prepare import write_corpus
from tests.helpers import Run
from tests.tasks.test_classify import ROWS


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, a vocabulary, a store, a pretrained model, and a classifier, made by the command line; bad files."""
    folder = tmp_path_factory.mktemp("cli")
    texts = folder / "texts"
    texts.mkdir()
    write_corpus(folder / "corpus.jsonl", documents=60)
    for number, line in enumerate((folder / "corpus.jsonl").read_text().splitlines()):
        (texts / f"{number:03d}.txt").write_text(json.loads(line)["text"] + "\n")
    for name, rows in (("train", ROWS[::2]), ("test", ROWS[1::2])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.toml").write_text(
        '[tokenizer]\nvocab_size = 120\n[pretrain]\nsize = "tiny"\nsteps = 6\ntokens_per_step = 256\n'
        "sequence_length = 32\nlr = 1\nmax_position_embeddings = 64\n[finetune]\nepochs = 30\nbatch_size = 8\n"
    )
    recipe = ["--recipe", str(folder / "recipe.toml")]
    for arguments in (
        ["tokenizer", str(texts), "--out", str(folder / "vocabulary"), *recipe],
        ["prepare", str(texts), "--tokenizer", str(folder / "vocabulary"), "--out", str(folder / "store")],
        ["pretrain", str(folder / "store"), "--out", str(folder / "run"), "--lr", "0.001", *recipe],
        [
            "finetune", "classify", "--model", str(folder / "run"), "--train", str(folder / "train.jsonl"),
            "--eval", str(folder / "test.jsonl"), "--out", str(folder / "classifier"), "--lr", "0.002", *recipe,
        ],
    ):  # fmt: skip
        assert main(arguments) == 0
    write_bad_files(folder)
    return folder


def test_the_whole_way(place: Path, bothways: Run) -> None:
    metrics = [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["step"] == 6
    assert max(line.get("lr", 0) for line in metrics) <= 0.001  # the flag wins over the recipe
    report = (place / "run" / "report.html").read_text()
    assert "<svg" in report
    assert "http://" not in report.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    code, out, _ = bothways("fill", place / "run", "the [MASK] runs.", "--json", "--top-k", "3")
    assert code == 0
    assert len(json.loads(out)["masks"][0]) == 3
    code, out, _ = bothways(
        "classify", place / "classifier", "the big red dog runs.", "the old blue house eats.", "--json"
    )
    assert [json.loads(line)["label"] for line in out.splitlines()] == ["animal", "thing"]
    code, out, _ = bothways("evaluate", place / "classifier", place / "test.jsonl", "--json")
    assert json.loads(out) == json.loads((place / "classifier" / "evaluation.json").read_text())
    code, out, _ = bothways("evaluate", place / "classifier", place / "test.jsonl")
    assert out.startswith("accuracy ")


def test_texts_from_a_file_and_from_standard_input(place: Path, bothways: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = bothways("classify", place / "classifier", "--in", place / "test.jsonl", "--json")
    assert len(out.splitlines()) == len(ROWS[1::2])
    monkeypatch.setattr(sys, "stdin", io.StringIO("the old red cat eats.\n\nthe big red house runs.\n"))
    code, out, err = bothways("classify", place / "classifier")
    assert code == 0
    assert [line.split("\t")[0] for line in out.splitlines()] == ["animal", "thing"]
    assert "1 empty line (2) left out" in err


def test_info_says_what_things_are(place: Path, bothways: Run) -> None:
    assert "60 documents" in bothways("info", place / "store")[1]
    assert "fills in masked words" in bothways("info", place / "run")[1]
    assert json.loads(bothways("info", place / "vocabulary", "--json")[1])["pieces"] == 92
    facts = json.loads(bothways("info", place / "classifier", "--json")[1])
    assert facts["labels"] == ["animal", "thing"]
    assert facts["weights"].endswith("expected, everything fits.")


def test_every_verb_has_help_with_an_example(bothways: Run) -> None:
    code, out, _ = bothways("--help")
    assert code == 0
    assert all(verb in out for verb in VERBS)
    for verb in VERBS:
        code, out, _ = bothways(verb, "--help")
        assert code == 0
        assert f"bothways {verb}" in out.replace("│", "").split("Example:")[1]


def test_help_is_quick_and_importing_is_light() -> None:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "bothways.cli", "--help"], check=True, capture_output=True)
    assert time.perf_counter() - began < 5  # half a second on an idle machine; a loaded one must not fail the test
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, bothways, bothways.cli; print(*sys.modules)"],
        check=True,
        capture_output=True,
    )
    assert not {"torch", "numpy", "pyarrow", "rich", "tokenizers"} & set(loaded.stdout.decode().split())


def test_the_version_says_what_is_compiled(bothways: Run) -> None:
    code, out, _ = bothways("--version")
    assert code == 0
    first, native, versions = out.splitlines()
    assert first == f"bothways {__version__}"
    opened = library()
    expected = "not compiled" if opened is None else "compiled, for AVX512" if "avx512" in opened._name else "compiled"
    assert native.startswith(f"native library: {expected}")
    assert versions.startswith(f"torch {torch.__version__}, Python 3.")
    assert bothways("-V") == (0, out, "")
    module = subprocess.run([sys.executable, "-m", "bothways", "--help"], check=True, capture_output=True, text=True)
    assert module.stdout == bothways("--help")[1]


def test_under_torchrun_the_first_process_speaks_for_all(
    bothways: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(cli.time, "sleep", waited.append)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    for rank, seconds in (("0", []), ("1", [cli.TORCHRUN_SECONDS])):
        monkeypatch.setenv("RANK", rank)
        missing = "SOURCE and --out are missing (bothways tokenizer --help has an example)"
        assert bothways("tokenizer") == (2, "", f"bothways: tokenizer: {missing}\n")
        assert waited == seconds
    said = json.loads((tmp_path / "error.json").read_text())["message"]["extraInfo"]["py_callstack"]
    assert said == f"bothways: tokenizer: {missing}"


def test_a_warning_of_a_verb_is_said_once_and_again_by_the_next(bothways: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def verb(arguments: list[str]) -> None:
        for number in (1, 1, 2):
            warnings.warn(f"odd {number}", UserWarning, stacklevel=1)

    monkeypatch.setattr(cli, "_function_of", lambda name: verb)
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            assert bothways("info") == (0, "", "bothways: odd 1\nbothways: odd 2\n")


def write_bad_files(folder: Path) -> None:
    (folder / "empty.txt").write_bytes(b"")
    (folder / "binary.txt").write_bytes(bytes(range(256)) * 10)
    (folder / "latin.txt").write_bytes("un café\n".encode("latin-1"))
    (folder / "long.txt").write_bytes(b"word " * 2_000_000)
    (folder / "columns.csv").write_text("subject,kind\nx,y\n")
    (folder / "unseen.jsonl").write_text('{"text": "the gas", "label": "gas"}\n')
    (folder / "broken.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    (folder / "typo.toml").write_text("[pretrain]\nstepz = 3\n")
    (folder / "type.toml").write_text('[pretrain]\nsteps = "many"\n')
    (folder / "table.toml").write_text("[pretrian]\nsteps = 2\n")
    (folder / "other.toml").write_text("[tokenizer]\nvocab_size = 90\n")
    (folder / "broken.toml").write_text("[pretrain\n")
    (folder / "file").write_text("x")


# name: (arguments, {0} being the folder of the files; what the line must say)
MISTAKES = {
    "verb": (
        "pretrian x",
        "unknown verb 'pretrian', did you mean 'pretrain'?",
    ),
    "missing file": (
        "tokenizer {0}/corpis.jsonl --out {0}/v",
        "corpis.jsonl: no such file or folder, did you mean 'corpus.jsonl'?",
    ),
    "empty file": (
        "tokenizer {0}/empty.txt --out {0}/v",
        "empty.txt: no text in it",
    ),
    "binary file": (
        "tokenizer {0}/binary.txt --out {0}/v",
        "binary.txt:1: binary file",
    ),
    "undecodable": (
        "tokenizer {0}/latin.txt --out {0}/v",
        "latin.txt:1: not UTF-8: byte 7 of the line is 0xe9",
    ),
    "10 MB line": (
        "prepare {0}/long.txt --tokenizer {0}/vocabulary --out {0}/s",
        "long.txt:1: line too long: 10,000,000 bytes",
    ),
    "corpus column": (
        "tokenizer {0}/columns.csv --out {0}/v",
        "columns.csv:2: no column 'text'; columns present: subject, kind",
    ),
    "malformed": (
        "tokenizer {0}/broken.jsonl --out {0}/v",
        "broken.jsonl:2: not valid JSON",
    ),
    "small vocabulary": (
        "tokenizer {0}/texts --vocab-size 20 --out {0}/v",
        "--vocab-size 20 is too small",
    ),
    "table column": (
        "finetune classify --model {0}/run --train {0}/columns.csv --out {0}/r",
        "columns.csv:2: no column 'text', the text; columns present: subject, kind (--text-column names one)",
    ),
    "unseen label": (
        "finetune classify --model {0}/run --train {0}/train.jsonl --eval {0}/unseen.jsonl --out {0}/r",
        "unseen.jsonl:1: label 'gas' was never seen in training; known: animal, thing",
    ),
    "unseen label later": (
        "evaluate {0}/classifier {0}/unseen.jsonl",
        "label 'gas' was never seen in training; known: animal, thing",
    ),
    "not a model": (
        "fill {0}/texts a [MASK]",
        "texts holds texts (000.txt, 001.txt, 002.txt, …), not a model: name a model, or make one",
    ),
    "no such model": (
        "fill {0}/absent/x/y a [MASK]",
        "no such model directory",
    ),
    "not a classifier": (
        "classify {0}/run x",
        "classify needs a model fine-tuned for it",
    ),
    "not a store": (
        "pretrain {0}/texts --out {0}/r",
        "not a token store: manifest.json is missing",
    ),
    "long sequence": (
        "pretrain {0}/store --sequence-length 600 --out {0}/r",
        "--sequence-length 600 is above what the model reads, 512 tokens",
    ),
    "unwritable": (
        "pretrain {0}/store --out {0}/file/r",
        "cannot be written: Not a directory",
    ),
    "recipe key": (
        "pretrain {0}/store --out {0}/r --recipe {0}/typo.toml",
        "[pretrain] has no option 'stepz', did you mean 'steps'?",
    ),
    "recipe type": (
        "pretrain {0}/store --out {0}/r --recipe {0}/type.toml",
        "steps = 'many', expected a whole number",
    ),
    "recipe syntax": (
        "pretrain {0}/store --out {0}/r --recipe {0}/broken.toml",
        "not valid TOML",
    ),
    "no recipe": (
        "pretrain {0}/store --out {0}/r --recipe absent.toml",
        "--recipe absent.toml: no such file",
    ),
    "recipe table": (
        "pretrain {0}/store --out {0}/r --recipe {0}/table.toml",
        "[pretrian] is no verb, did you mean 'pretrain'?",
    ),
    "recipe of another verb": (
        "pretrain {0}/store --out {0}/r --recipe {0}/other.toml",
        "has no [pretrain]; it has [tokenizer]",
    ),
    "flag": ("pretrain {0}/store --out {0}/r --stepz 3", "--stepz"),
    "value": ("pretrain {0}/store --out {0}/r --steps abc", "--steps: expected a whole number, found 'abc'"),
    "option before a verb": ("--verison", "unknown option --verison, did you mean '--version'?"),
    "size": ("pretrain {0}/store --out {0}/r --size hug", "--size hug: expected one of tiny, mini, small, medium"),
    "vocabulary over a corpus": (
        "tokenizer {0}/texts --out {0}/texts",
        "texts holds something else (000.txt, 001.txt, 002.txt)",
    ),
    "vocabulary over a file": ("tokenizer {0}/texts --out {0}/file", "file is not a directory"),
    "run over a store": ("pretrain {0}/store --out {0}/store", "store's directory (manifest.json), not a run's"),
    "two places of text": ("classify {0}/classifier text --in {0}/test.jsonl", "both as arguments and by --in"),
    "info": (
        "info {0}/absent",
        "no such path",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_get_one_clear_line_and_exit_code_2(name: str, place: Path, bothways: Run) -> None:
    arguments, message = MISTAKES[name]
    code, _, err = bothways(*(argument.format(place) for argument in arguments.split()))
    assert code == 2
    last = err.strip().splitlines()[-1]
    assert last.startswith("bothways: ")
    assert message in last
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("bothways: ")]) == 1


def test_bad_text_can_be_left_out_and_is_counted(place: Path, bothways: Run) -> None:
    (place / "mixed.txt").write_bytes(b"the dog runs.\nun caf\xe9\nthe cat sleeps.\n")
    code, _, errors = bothways(
        "prepare", place / "mixed.txt", place / "long.txt", place / "binary.txt", place / "broken.jsonl",
        "--skip-bad", "--tokenizer", place / "vocabulary", "--out", place / "skipping",
    )  # fmt: skip
    assert code == 0
    for line in (
        "mixed.txt: not UTF-8: 1",
        "long.txt: line too long: 1",
        "binary.txt: binary file: 1",
        "not valid JSON: 1",
    ):
        assert line in errors


def test_standard_input_in_any_locale_and_a_full_disk_behind_the_output(place: Path) -> None:
    command = [sys.executable, "-m", "bothways.cli", "classify", str(place / "classifier")]
    posix = {**os.environ, "LC_ALL": "C.UTF-8"}
    bad = subprocess.run(command, input=b"fine\n\xff\n", capture_output=True, env=posix)
    assert bad.returncode == 2
    assert b"standard input:2: byte 0xff is not UTF-8" in bad.stderr
    narrow = {**os.environ, "PYTHONIOENCODING": "ascii"}
    shown = subprocess.run(command, input="the dog — runs.\n".encode(), capture_output=True, env=narrow, check=True)
    assert b"the dog \\u2014 runs." in shown.stdout
    with Path("/dev/full").open("w") as full:
        lost = subprocess.run([*command, "the dog runs."], stdout=full, stderr=subprocess.PIPE)
    assert lost.returncode == 2
    assert b"the output cannot be written: No space left on device" in lost.stderr


def test_a_table_is_read_by_the_columns_of_the_training(place: Path, bothways: Run) -> None:
    rows = [{"text": "the big\tdog runs.", "label": "animal"}]
    (place / "tab.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, _ = bothways("classify", place / "classifier", "--in", place / "tab.jsonl", "--json")
    assert code == 0
    assert json.loads(out)["text"] == rows[0]["text"]
    (place / "separators.txt").write_text("the dog\u2028runs.\nthe cat\x0csleeps.\n", encoding="utf-8")
    code, out, _ = bothways("classify", place / "classifier", "--in", place / "separators.txt", "--json")
    assert len(out.splitlines()) == 2


def test_sigterm_and_the_same_command_again(place: Path) -> None:
    command = [
        sys.executable, "-m", "bothways.cli", "pretrain", str(place / "store"), "--size", "tiny", "--steps", "100000",
        "--tokens-per-step", "256", "--sequence-length", "32", "--out", str(place / "stopped"),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = place / "stopped" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + 15, err
    assert "stopped by SIGTERM after step" in out
    assert "the same command again goes on" in out
    assert list((place / "stopped" / "checkpoints").glob("step-*/state.json"))


def test_info_says_what_a_recipe_would_see_and_shows_batches(place: Path, bothways: Run) -> None:
    code, out, _ = bothways("info", place / "store", "--recipe", place / "recipe.toml")
    assert code == 0
    assert "6 steps of 256 tokens at length 32: 1,536 tokens" in out
    assert "sentences" in out
    code, of_run, _ = bothways("info", place / "run", "--batch", "3")
    assert code == 0
    assert of_run.startswith("step 3: ")
    assert "[MASK]→" in of_run
    assert "next_sentence_label" in of_run
    code, of_store, _ = bothways("info", place / "store", "--batch", "3", "--recipe", place / "recipe.toml")
    assert of_store == of_run
    for target, step, message in (
        ("run", "7", "the run has 6 steps"),
        ("run", "0", "expected a step, counted from 1"),
        ("vocabulary", "1", "this is neither"),
    ):
        code, _, err = bothways("info", place / target, "--batch", step)
        assert code == 2
        assert message in err
