"""Shipped models by name: which one a verb uses, what counts as a name, and what is said where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

import bothways as bw
from bothways.checkpoint import shipped as registry
from bothways.checkpoint.hugging_face import load_checkpoint, name_table
from bothways.verbs.command_line import names_model
from tests.helpers import Run
from tests.shipped import TABLE

TEXT = "the old [MASK] sleeps."


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_without_a_model_a_verb_uses_its_own_and_says_which(shipped: Path, bothways: Run, tmp_path: Path) -> None:
    (tmp_path / "f.txt").write_text("the dog runs.\nthe cat sleeps.\n")
    asked: dict[str, tuple[str, ...]] = {
        "fill": (TEXT,),
        "score": ("the dog runs",),
        "explain": ("the dog runs",),
        "answer": ("where is the cat?", "the cat is in the house"),
        "tag": ("the dog runs",),
        "similar": ("dog", "--in", "f.txt"),
        "embed": ("--in", "f.txt"),
        "generate": ("the dog", "--max-tokens", "2"),
        "suggest": ("the dog",),
    }
    for verb, words in asked.items():
        name = next(name for name, entry in TABLE.items() if verb in entry["verbs"])
        code, out, err = bothways(verb, *words)
        assert (code, err.splitlines()[0]) == (0, f"model: {name} (shipped; bothways info {name})"), verb
        assert out
        first, *rest = words if words[0] != "--in" else ("--in", *words[1:])
        assert bothways(verb, name, first, *rest)[1] == out  # by its name; then nothing is to be said
        assert "shipped;" not in bothways(verb, "--model", name, first, *rest)[2]
    assert bothways("answer", "where?", "--in", "f.txt")[0] == 0
    (tmp_path / "q.jsonl").write_text(json.dumps({"question": "where?", "context": "in the house"}) + "\n")
    code, out, err = bothways("answer", "--in", "q.jsonl", "--out", "a.jsonl")
    assert (code, out.split(",")[0]) == (0, "a.jsonl: 1 rows"), err


def test_in_python_the_default_fills_masks_and_names_others(shipped: Path) -> None:
    model = bw.load()
    assert model.checkpoint.source == "mini"
    assert len(model.fill(TEXT)[0]) == 5
    asked = {
        "answers": lambda: model.answer("where?", "in the house"),
        "entities": lambda: model.tag("the dog"),
        "writer": lambda: model.generate("the dog"),
    }
    for name, ask in asked.items():
        with pytest.raises(bw.UserError, match=rf"; a shipped model can: `bothways.load\('{name}'\)`$"):
            ask()
    with pytest.raises(bw.UserError, match=r"\(`bothways.finetune\('classify', …\)`\); this one has \w+ and no task$"):
        model.classify("the dog")
    assert bw.load("answers").answer("where?", "in the house").text


@pytest.mark.parametrize(
    ("words", "least", "is_model"),
    [
        (["mini", "text"], 1, True),
        (["mini"], 1, True),  # then the text is missing, which is said
        (["run", "text"], 1, True),  # a directory
        (["a run", "text"], 1, True),
        (["rnu", "text"], 1, True),  # a name that is not there: said, not read as a text
        (["sentence-transformers/all-MiniLM-L6-v2", "text"], 1, True),
        (["runs/rnu"], 1, True),
        (["wifi"], 1, False),
        (["wifi"], 0, True),
        (["Paris is the capital of [MASK]."], 1, False),
        (["Paris is the capital of [MASK].", "Another [MASK]."], 1, False),
        (["[MASK]!"], 0, False),
        (["今天天气很好", "text"], 1, False),
    ],
)
def test_what_is_a_model_and_what_a_text(
    words: list[str], least: int, is_model: bool, shipped: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "a run").mkdir()
    assert names_model(words, least) is is_model


def test_a_directory_wins_over_a_shipped_name(shipped: Path, pretrained: Path, tmp_path: Path) -> None:
    assert bw.load("mini").config.hidden_size == 64
    pretrained.rename(tmp_path / "mini")
    assert bw.load("mini").config.hidden_size == 32


def test_fine_tuning_begins_with_the_encoder(shipped: Path, bothways: Run, tmp_path: Path) -> None:
    rows = [{"text": f"the {animal} runs", "label": animal} for animal in ("dog", "cat")] * 4
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("finetune", "classify", "--train", "t.jsonl", "--out", "animals", "--steps", "2")
    code, _, err = bothways(*words)
    assert code == 0
    assert "model: mini (shipped; bothways info mini)" in err
    run = json.loads((tmp_path / "animals" / "run.json").read_text())
    assert run["inputs"]["model"] == "mini"
    assert "--model mini" in run["command"]
    assert bothways("classify", "animals", "the dog runs")[0] == 0
    bw.finetune("classify", train=rows, out=tmp_path / "python", steps=1, quiet=True)
    with pytest.raises(bw.UserError, match="no rows"):
        bw.finetune("classify", out=tmp_path / "nothing", quiet=True)


def test_info_shows_the_card(shipped: Path, bothways: Run) -> None:
    code, out, _ = bothways("info", "mini")
    assert code == 0
    assert out.startswith("mini: a shipped model that ")
    assert "\n# mini\n\nA card: data, licence, cost.\n" in out
    assert out.endswith('next: bothways fill mini "a [MASK] in a text"\n')
    facts = json.loads(bothways("info", "answers", "--json")[1])
    assert (facts["about"], facts["card"]) == ("finds answers", "")
    assert "did you mean 'writer'?" in bothways("info", "writre")[2]


def test_export_writes_what_transformers_opens(shipped: Path, bothways: Run, tmp_path: Path) -> None:
    for name in ("mini", "entities", "writer"):
        code, out, err = bothways("export", "hugging-face", name, "--out", name)
        assert (code, out.split(",")[0]) == (0, f"{name}: opens in transformers"), err
        ours = load_checkpoint(shipped / name)
        theirs, report = getattr(transformers, ours.model.head.architecture or "").from_pretrained(
            tmp_path / name, output_loading_info=True
        )
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        weights = name_table(ours.model).to_hugging_face(ours.model.state_dict())
        assert all(torch.equal(theirs.state_dict()[key], tensor) for key, tensor in weights.items())
    assert bothways("export", "hugging-face", "mini", "--out", "mini")[1] == "mini: done already\n"


def test_opening_a_model_asks_no_compiler(shipped: Path, tmp_path: Path) -> None:
    """What takes seconds to import is not imported for a question."""
    code = "import sys, bothways as bw; bw.load().fill('the old [MASK].'); print('torch._dynamo' in sys.modules)"
    paths = os.pathsep.join([str(shipped.parents[1]), str(Path(bw.__file__).parents[1])])
    environment = {**os.environ, "PYTHONPATH": paths}
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert asked.stdout == "False\n", asked.stderr


def test_where_there_is_none_one_line_says_what_to_do(
    shipped: Path, bothways: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make = "made by `bothways finetune classify`"
    others = f"none of the shipped ones ({', '.join(TABLE)}) is for it; name one by --model DIR"
    assert bothways("classify", "the dog runs")[2] == f"bothways: classify: no model is named, and {others}, {make}\n"
    monkeypatch.setattr(registry, "PACKAGE", "no_such_package")
    install = "`pip install ./packages/bothways-models` in Bothways' checkout installs them"
    expected = f"no model is named, and the shipped models are not installed: {install}; or name one by"
    assert bothways("fill", TEXT) == (2, "", f"bothways: fill: {expected} --model DIR\n")
    with pytest.raises(bw.UserError) as error:
        bw.load()
    assert str(error.value) == f"fill: {expected} model='DIR'"


def test_a_package_without_models_is_said(monkeypatch: pytest.MonkeyPatch, bothways: Run, tmp_path: Path) -> None:
    package = tmp_path / "site" / "no_models"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "models.json").write_text("{}")
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setattr(registry, "PACKAGE", "no_models")
    expected = f"no model is named, and the package of shipped ones, {package}, has none; name one by --model DIR"
    assert bothways("fill", TEXT) == (2, "", f"bothways: fill: {expected}\n")


def test_a_damaged_table_is_one_line(monkeypatch: pytest.MonkeyPatch, bothways: Run, tmp_path: Path) -> None:
    package = tmp_path / "site" / "bothways_models"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "models.json").write_text('{"mini": {"verbs": ["fill"]}}')
    monkeypatch.syspath_prepend(package.parent)
    code, _, err = bothways("fill", TEXT)
    assert (code, err.count("\n")) == (2, 1)
    assert "models.json: a model needs verbs and about" in err
    assert "bothways_models" not in sys.modules  # it is data: nothing of it is run
