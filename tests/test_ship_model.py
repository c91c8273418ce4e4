"""From a run to a shipped model: what is written, what is left out of it, what is measured."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

import bothways as bw
from bothways.checkpoint.compact import save_compact
from tests.shipped import checkpoint
from tools.model_card import read_card_texts
from tools.ship_model import PACKAGE, main, without_paths

ROWS = [{"question": "where is the cat?", "context": "the cat is in the house.", "answers": ["in the house"]}] * 4


def test_a_run_becomes_a_shipped_model(
    shipped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "site" / "bothways_models"
    out.mkdir(parents=True)
    (out / "__init__.py").touch()
    assert main(["mini", "--name", "mini", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "Same first guess for a masked word: 1.0" in said  # what was int8 is int8 again
    monkeypatch.chdir(tmp_path)
    tiny = {"steps": 2, "freeze_layers": 1, "sequence_length": 32, "quiet": True}
    bw.finetune("answer", "mini", ROWS, ROWS, tmp_path / "run", **tiny)  # type: ignore[arg-type]
    words = [str(tmp_path / "run"), "--name", "answers", "--base", "mini", "--out", str(out)]
    assert main(words) == 0
    assert "21 of 39 tensors shared" in capsys.readouterr().out
    made = out / "models" / "answers"
    assert json.loads((out / "models.json").read_text())["answers"] == {
        "verbs": ["answer"],
        "about": "finds the answer to a question in a text, or says that it has none",
    }
    card = (made / "README.md").read_text()
    for line in ("# answers", "| SQuAD 2.0, a part | 7,472 questions | CC BY-SA 4.0 |", "kWh (an estimate, at 60 W)"):
        assert line in card
    assert "2 steps" in card
    assert "`int8`" in card
    assert "<svg" in (made / "curve.svg").read_text()
    for file in made.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file
    monkeypatch.syspath_prepend(out.parent)
    before, after = bw.load(tmp_path / "run"), bw.load("answers")
    question = (ROWS[0]["question"], ROWS[0]["context"])
    assert after.answer(*question).probability == pytest.approx(before.answer(*question).probability, abs=0.01)


def test_the_loss_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = checkpoint("masked-LM", seed=1)
    save_compact(model, tmp_path / "whole", "float32")
    arguments = [str(tmp_path / "whole"), "--name", "mini", "--out", str(tmp_path / "out")]
    figures = {}
    for storage in ("int8", "float32"):
        assert main([*arguments, "--storage", storage]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert ("differ by 0.00e+00 at most" in lines[1]) is (storage == "float32")
        figures[storage] = {name: float(value) for name, _, value in (line.partition(": ") for line in lines[2:])}
    assert figures["float32"]["Same first guess for a masked word"] == 1
    assert 0.5 < figures["int8"]["Same first guess for a masked word"] <= 1
    assert 0.99 < figures["int8"]["Least cosine of vectors"] <= 1


def test_what_is_wrong_with_a_card_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = tmp_path / "card.toml"
    for text, said in (
        ("abuot = 'x'\n", "has no option 'abuot', did you mean 'about'?"),
        ("about = 'x'\n", "verbs, licence, what, cannot, data missing"),
        ("about =\n", "cannot be read"),
    ):
        card.write_text(text)
        assert main([str(tmp_path), "--name", "x", "--card", str(card), "--out", str(tmp_path)]) == 2
        assert said in capsys.readouterr().err
    assert main([str(tmp_path), "--name", "nobody", "--out", str(tmp_path)]) == 2
    assert "nobody.toml: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("card", sorted((PACKAGE / "cards").glob("*.toml")), ids=lambda path: path.stem)
def test_every_card_can_be_read(card: Path) -> None:
    assert read_card_texts(card).data


def test_no_path_of_a_machine_is_left() -> None:
    assert without_paths({"a": ["/x/y", "x/y"], "command": "bothways …", "n": 1}) == {"a": ["y", "x/y"], "n": 1}


def test_the_packages_are_small() -> None:
    """A wheel of Bothways has less than 2 MB, as it packs its files; one of the models less than 60 MB as they are."""
    files = [path for path in (PACKAGE.parents[1] / "bothways").rglob("*") if path.is_file()]
    assert sum(len(zlib.compress(path.read_bytes())) for path in files if path.suffix != ".pyc") < 2e6
    models = [path for path in (PACKAGE / "bothways_models").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in models) < 60e6
