"""`bothways info`: what a path is, how good, from what, and a next command that works when it is pasted."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint
from bothways.cli import main
from bothways.model.families import FAMILIES, head_builder
from bothways.model.heads import HeadKind
from bothways.tasks import TASKS
from bothways.tasks.instruct import PROMPT_AND_RESPONSE, InstructOptions
from bothways.text.tokenizer import Tokenizer
from bothways.train.finetune import finetune
from bothways.train.finetune_options import FinetuneOptions
from bothways.verbs.describe_files import TASK_COLUMNS
from tests.helpers import Run
from tests.train.running import StopAfter
from tests.train.test_finetune import ROWS

LINES = 25  # of a terminal, which all of it fits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a blank in its name, and in it everything that Bothways makes."""
    folder = tmp_path_factory.mktemp("my things")
    texts = folder / "texts"
    texts.mkdir()
    sentence = "the {} dog runs in the old house and the {} cat sleeps. "
    for number in range(20):
        (texts / f"{number}.txt").write_text(sentence.format("big" * (number % 3), "small") * 20)
    for name, rows in (("train", ROWS[::2]), ("test", ROWS[1::2])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny = ["--size", "tiny", "--steps", 2, "--tokens-per-step", 128, "--sequence-length", 32]
    for arguments in (
        ["tokenizer", texts, "--out", folder / "vocabulary", "--vocab-size", 120],
        ["prepare", texts, "--tokenizer", folder / "vocabulary", "--out", folder / "store"],
        ["pretrain", folder / "store", "--out", folder / "run", *tiny, "--max-position-embeddings", 64],
        [
            "finetune", "classify", "--model", folder / "run", "--train", folder / "train.jsonl", "--eval",
            folder / "test.jsonl", "--out", folder / "tickets", "--epochs", 2,
        ],
    ):  # fmt: skip
        assert main([str(argument) for argument in arguments]) == 0
    return folder


def lines_of(bothways: Run, *arguments: object) -> list[str]:
    code, output, _ = bothways("info", *arguments)
    assert code == 0
    lines = output.splitlines()
    assert len(lines) <= LINES
    return lines


def test_a_pretrained_run(folder: Path, bothways: Run) -> None:
    output = "\n".join(lines_of(bothways, folder / "run"))
    assert "a finished run, whose model fills in masked words" in output
    assert "training: 2 steps" in output
    assert "held-out: masked-LM loss" in output
    assert "text: 20 files in " in output
    assert "19 documents" in output
    assert "learning rate 0.002" in output
    assert "None" not in output
    assert "Head" not in output


def test_a_store_of_few_documents_says_that_none_is_held_out(folder: Path, bothways: Run, tmp_path: Path) -> None:
    for number, expected in ((1, "1 document,"), (9, "9 documents,"), (10, "10 documents,")):
        few, store = tmp_path / f"{number}", tmp_path / f"store {number}"
        few.mkdir()
        for name in range(number):
            (few / f"{name}.txt").write_text("the big dog runs.\n")
        arguments = ("--tokenizer", folder / "vocabulary", "--workers", 1, "--out", store)
        code, out, err = bothways("prepare", few, *arguments)
        assert code == 0, err
        assert f"{store}: {expected}" in out
        assert ("none is held out of 9 documents or fewer: all are trained on" in out) == (number < 10)
        assert ("held out: 1 document, " in out) == (number == 10)


def test_a_fine_tuned_run_names_rows_labels_and_the_best_epoch(folder: Path, bothways: Run) -> None:
    output = "\n".join(lines_of(bothways, folder / "tickets"))
    assert "whose model classifies a text" in output
    assert "labels: animal, thing (one label for each text)" in output
    accuracy = json.loads((folder / "tickets" / "evaluation.json").read_text())["accuracy"]
    assert f"held-out: accuracy {accuracy:.3f}" in output
    assert f"trained on: {folder / 'train.jsonl'}, 18 rows" in output
    assert f"measured on: {folder / 'test.jsonl'}, 18 rows" in output
    facts = json.loads(bothways("info", folder / "tickets", "--json")[1])
    assert f"best epoch: {facts['provenance']['best_epoch']}, whose model is kept" in output
    assert facts["evaluation"]["accuracy"] == accuracy


@pytest.mark.parametrize("name", ["texts", "texts/0.txt", "store", "run", "tickets", "tickets/model"])
def test_what_comes_next_works_when_it_is_pasted(name: str, folder: Path, bothways: Run, tmp_path: Path) -> None:
    *_, last = lines_of(bothways, folder / name)
    assert last.startswith("next: bothways ")
    words = shlex.split(last.removeprefix("next: bothways "))
    if "--out" in words:  # where it is pasted
        words[-1] = str(tmp_path / words[-1])
    cheap = ["--vocab-size", "120"] if words[0] == "tokenizer" else []
    cheap += ["--size", "tiny", "--steps", "1", "--tokens-per-step", "128"] if words[0] == "pretrain" else []
    code, _, error = bothways(*words, *cheap)
    assert code == 0, error


def test_a_run_that_has_not_finished(folder: Path, bothways: Run, tmp_path: Path) -> None:
    run = tmp_path / "stopped"
    (run / "checkpoints" / "step-00000056").mkdir(parents=True)
    metrics = [{"step": 40, "tokens": 9, "eval_mlm_loss": 6.5, "eval_mlm_accuracy": 0.125}, {"step": 50, "loss": 6.25}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    command = "bothways pretrain store --out stopped --steps 2000"
    (run / "run.json").write_text(json.dumps({"store": "s", "command": command, "options": {"steps": 2000}}))
    lines = lines_of(bothways, run)
    assert lines[0].endswith("has not finished: 56 of 2,000 steps are done; step 56 is saved")
    assert lines[1:3] == [
        "training loss: 6.250 (step 50)",
        "held-out: masked-LM loss (nats) 6.500, masked-LM accuracy 0.125 (step 40)",
    ]
    assert lines[-1] == f"next: {command}"


def test_a_stopped_run_is_told_as_the_model_that_it_is(folder: Path, bothways: Run, tmp_path: Path) -> None:
    files = {"train": folder / "train.jsonl", "eval": folder / "test.jsonl"}
    options = FinetuneOptions(epochs=4, batch_size=6)  # three steps an epoch
    for name, evaluated, used in (("with", files, "best epoch so far"), ("without", {}, "last checkpoint")):
        tables = {"train": files["train"], **evaluated}
        finetune("classify", folder / "run", out=tmp_path / name, options=options, progress=StopAfter(4), **tables)
        lines = lines_of(bothways, tmp_path / name)
        assert lines[0].endswith("has not finished: 4 of 12 steps are done; step 4 is saved")
        assert any(line.startswith(f"as it stands, by its {used}, it classifies a text") for line in lines)
        assert "labels: animal, thing (one label for each text)" in lines
        assert f"trained on: {files['train']}, 18 rows" in lines
        command = lines[-1].removeprefix("next: ")
        assert f"the command that began it goes on with it: {command}" in lines
        code, _, errors = bothways(*shlex.split(command)[1:])
        assert code == 0
        assert "resuming at step 4 of 12" in errors


def test_tables_and_predictions(folder: Path, bothways: Run, tmp_path: Path) -> None:
    lines = lines_of(bothways, folder / "train.jsonl")
    assert lines[0] == f"{folder / 'train.jsonl'}: a table, 18 rows; columns: text, label"
    assert lines[1] == "labels: animal 12, thing 6"
    assert lines[2].startswith("used by: bothways finetune classify --model MODEL --train ")
    assert (
        bothways("classify", folder / "tickets", "--in", folder / "test.jsonl", "--out", tmp_path / "p.jsonl")[0] == 0
    )
    assert lines_of(bothways, tmp_path / "p.jsonl")[-1] == "it holds predictions, in the column predicted"
    quoted = tmp_path / "quoted.csv"
    quoted.write_text('text,label\n"one\nletter",a\n"another\n\nletter",b\n')
    assert lines_of(bothways, quoted)[0] == f"{quoted}: a table, 2 rows; columns: text, label"
    conll = tmp_path / "a.conll"
    conll.write_text("the O\ndog B-animal\n\na O\n")
    assert lines_of(bothways, conll)[0] == f"{conll}: CoNLL columns, 2 rows; columns: words, labels"
    numbers = tmp_path / "scores.csv"
    numbers.write_text("text,label\n" + "".join(f"text,{n / 10}\n" for n in range(60)))
    assert "--problem-type regression" in lines_of(bothways, numbers)[-1]


def test_a_bulk_job_that_has_not_finished(bothways: Run, tmp_path: Path) -> None:
    parts = tmp_path / "labelled.jsonl.parts"
    parts.mkdir()
    (parts / "manifest.json").write_text(json.dumps({"job": {"input": "all.jsonl"}, "parts": [{}, {}]}))
    (parts / "00000002.json").write_text("{}")
    for path in (parts, tmp_path / "labelled.jsonl"):
        assert "the results for all.jsonl, which has not finished: 1 of 2 parts are done" in lines_of(bothways, path)[0]


def test_models_from_elsewhere(minilm: Path, bothways: Run) -> None:
    lines = lines_of(bothways, minilm)
    assert "a model that turns a text into a vector" in lines[0]
    assert "6 layers of 12 heads, 384 wide, 22.6 million parameters" in lines[1], "22,713,216 less its pooler's 147,840"


def test_the_demos_folder(folder: Path, bothways: Run, tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text(json.dumps({"minutes": 5.0}))
    (tmp_path / "tickets").symlink_to(folder / "tickets")
    lines = lines_of(bothways, tmp_path)
    assert "what bothways demo made, not finished" in lines[0]
    assert "tickets: a model, held-out: accuracy" in "\n".join(lines)


def test_what_is_none_of_ours_is_named(bothways: Run, tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(b"PK")
    assert "a .docx file, 2 bytes" in lines_of(bothways, tmp_path / "a.docx")[0]
    assert "a folder of nothing that Bothways made or reads: a.docx" in lines_of(bothways, tmp_path)[0]
    (tmp_path / "empty").mkdir()
    assert lines_of(bothways, tmp_path / "empty") == [f"{tmp_path / 'empty'}: an empty folder"]
    code, _, error = bothways("info", tmp_path / "a.doc")
    assert code == 2
    assert "no such path, did you mean 'a.docx'?" in error


def test_a_batch_is_cut_to_a_screen(folder: Path, bothways: Run) -> None:
    recipe = folder / "large.toml"
    recipe.write_text("[pretrain]\nsequence_length = 32\n")
    lines = lines_of(bothways, folder / "store", "--batch", 1, "--recipe", recipe)
    number = int(lines[0].split()[2])
    assert lines[-1] == f"… and {number - 8} more sequences; --all shows them"
    code, output, _ = bothways("info", folder / "store", "--batch", 1, "--recipe", recipe, "--all")
    assert (code, len(output.splitlines())) == (0, number + 1)


def test_torch_is_imported_for_models_alone(folder: Path) -> None:
    script = "import sys; from bothways.verbs.info import run_info\n"
    script += "for name in sys.argv[1:]: run_info([name]); print('torch' in sys.modules)"
    names = ("store", "vocabulary", "texts", "train.jsonl")
    command = [sys.executable, "-c", script, *(folder / name for name in names)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert [line for line in told if line in ("True", "False")] == ["False"] * len(names)


def test_tables_are_known_by_the_columns_of_the_tasks() -> None:
    assert {name for name, _ in TASK_COLUMNS} == set(TASKS)
    for name, columns in TASK_COLUMNS:
        if name != "instruct":
            assert set(columns) <= set(TASKS[name].example), name
    conversations = {columns for name, columns in TASK_COLUMNS if name == "instruct"}
    assert conversations == {(InstructOptions().messages_column,), *PROMPT_AND_RESPONSE}


def test_a_table_of_exchanges_is_for_instruct(bothways: Run, tmp_path: Path) -> None:
    table = tmp_path / "exchanges.jsonl"
    table.write_text('{"question": "A red light?", "answer": "Check the cable."}\n')
    assert lines_of(bothways, table)[-1].startswith("used by: bothways finetune instruct --model MODEL --train ")


@pytest.mark.parametrize(
    ("family", "kind", "said"),
    [
        ("roberta", "masked-LM", ("fills in masked words", "RoBERTa, 2 layers of 2 heads", "byte-level BPE")),
        ("modernbert", "sequence", ("classifies a text", "ModernBERT, 2 layers of 2 heads", "labels: no, yes")),
        ("gpt2", "causal-LM", ("goes on with a text", "GPT-2, 2 layers of 2 heads", "reads left to right")),
    ],
)
def test_a_model_of_each_family(
    family: str, kind: HeadKind, said: tuple[str, ...], tmp_path: Path, bothways: Run
) -> None:
    """Family, size, vocabulary and head are named, and the command that is given works as it is."""
    tokenizer = Tokenizer.train_byte_bpe(lambda: ["the old dog runs in the house"] * 3, 270)
    config = FAMILIES[family].config(
        vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, pad_token_id=tokenizer.pad_id,
    )  # fmt: skip
    labelled = {"task": "classify", "labels": ["no", "yes"], "problem_type": "single_label_classification"}
    model = new_model(config, head_builder(kind, 2), 0)
    save_checkpoint(Checkpoint(model, tokenizer, labelled if kind == "sequence" else {}), tmp_path / "model")
    lines = lines_of(bothways, tmp_path / "model")
    text = "\n".join(lines)
    assert all(part in text for part in (*said, "16 wide", "pieces of byte-level BPE"))
    command = lines[-1].removeprefix("next: bothways ")
    assert bothways(*shlex.split(command))[0] == 0, command
    if family == "roberta":
        assert "a <mask> in a text" in command
        code, _, errors = bothways("fill", tmp_path / "model", "no mask here")
        assert (code, "no <mask> in 'no mask here': write <mask> where" in errors) == (2, True)
