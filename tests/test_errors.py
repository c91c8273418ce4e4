"""A user's mistake is one line, whatever it quotes."""

from __future__ import annotations

import copy
import pickle
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import bothways as bw
from bothways.data.tables import read_rows
from bothways.errors import EXTRAS, command, install_command, option, options_as_flags


def test_what_is_quoted_does_not_break_the_line() -> None:
    rows = [{"a\nb": "x", "text\r\n": "y", "c\u2028d": "z"}]
    with pytest.raises(bw.UserError, match=r"columns present: a b, text ?, c d") as refusal:
        read_rows(rows, ["text"])
    message = str(refusal.value)
    assert len(message.splitlines()) == 1
    for again in (pickle.loads(pickle.dumps(refusal.value)), copy.copy(refusal.value)):
        assert type(again) is bw.UserError
        assert str(again) == message


@pytest.mark.parametrize(
    ("given", "in_python", "as_flag"),
    [
        (("top_k",), "top_k", "--top-k"),
        (("top_k", 0), "top_k=0", "--top-k 0"),
        (("truncate", "right"), "truncate='right'", "--truncate right"),
        (("out", Path("a/b")), "out='a/b'", "--out a/b"),
        (("skip_bad", True), "skip_bad=True", "--skip-bad"),
        (("skip_bad", False), "skip_bad=False", "--no-skip-bad"),
        (("phases", ("128:0.9", "512:0.1")), "phases=('128:0.9', '512:0.1')", "--phases 128:0.9 512:0.1"),
        (("steps", None), "steps=None", "--steps None"),
    ],
)
def test_an_option_is_spelled_as_it_is_typed(given: tuple[str, object], in_python: str, as_flag: str) -> None:
    assert option(*given) == in_python
    with options_as_flags():
        assert option(*given) == as_flag
    assert option(*given) == in_python


def test_a_verb_is_spelled_as_it_is_typed() -> None:
    assert (command("prepare"), command("finetune", "tag")) == (
        "`bothways.prepare(…)`",
        "`bothways.finetune('tag', …)`",
    )
    with options_as_flags():
        assert (command("prepare"), command("finetune", "tag")) == ("`bothways prepare`", "`bothways finetune tag`")


def test_a_folder_of_texts_is_named_as_such(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.jsonl.gz", "d.md"):
        (tmp_path / name).write_text("some text")
    with pytest.raises(bw.UserError, match=r"holds texts \(a.txt, b.txt, c.jsonl.gz, …\), not a model.* prepare makes"):
        bw.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(bw.UserError, match=r"config\.json"):
        bw.load(tmp_path)


def test_the_same_mistake_in_python_and_on_the_command_line(
    pretrained: Path, tmp_path: Path, bothways: Callable[..., tuple[int, str, str]]
) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("text,label\na,x\nb,y\n")
    with pytest.raises(bw.UserError, match=r"^freeze_layers=9: expected 0 to 2, or -1"):
        bw.finetune("classify", pretrained, table, out=tmp_path / "run", freeze_layers=9)
    arguments = "--model", pretrained, "--train", table, "--out", tmp_path / "run"
    code, _, errors = bothways("finetune", "classify", *arguments, "--freeze-layers", 9)
    assert (code, "bothways: --freeze-layers 9: expected 0 to 2, or -1" in errors) == (2, True)


def test_hints_name_the_packages_of_the_extras() -> None:
    """Those of pyproject.toml, with extras of extras written out; others are for this repository's own work only."""
    declared = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = declared["optional-dependencies"]

    def packages(extra: str) -> list[str]:
        found = []
        for entry in extras[extra]:
            inner = re.fullmatch(r"bothways\[(.*)\]", entry)
            for own in inner[1].split(",") if inner else []:
                found += packages(own)
            found += [] if inner else re.split(r"[<>=]", entry)[:1]
        return found

    hints = {extra: shlex.split(names) for extra, names in EXTRAS.items()}
    assert hints == {extra: packages(extra) for extra in EXTRAS}
    own = {"peers", "dev", "docs", "notebooks"}
    assert set(extras) - set(EXTRAS) == {*own, "models"}  # `checkpoint/shipped.py: INSTALL`
    assert install_command("umap") == "pip install umap-learn (the extra 'umap' of Bothways)"


def test_the_demo_names_its_extra_once_and_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bothways: Callable[..., tuple[int, str, str]]
) -> None:
    monkeypatch.setattr("bothways.demo.run.find_spec", lambda name: None)
    code, _, errors = bothways("demo", "--out", tmp_path / "demo")
    packages = "matplotlib tensorboard scikit-learn gensim nltk"
    needed = f"the demo needs matplotlib, sklearn, gensim, nltk: pip install {packages} (the extra 'demo' of Bothways)"
    assert (code, errors) == (2, f"bothways: {needed}\n")
    assert not (tmp_path / "demo").exists()
