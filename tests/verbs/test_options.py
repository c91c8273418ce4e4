"""Options from the command line: what is read, and one plain sentence on what is wrong; the help in groups."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from bothways.errors import UserError
from bothways.model.config import SIZES
from bothways.verbs.flags import parse
from bothways.verbs.help import METAVARS
from bothways.verbs.options import Positional
from tests.helpers import Run


@dataclass(frozen=True)
class Arguments:
    """store: where. steps: how many. lr: how fast, not more than top_k. names: of things. quick: hurry."""

    store: Positional[str]
    texts: Positional[tuple[str, ...]] = ()
    steps: int = 2000
    lr: float | None = None
    top_k: int | None = None
    names: tuple[str, ...] = ()
    precision: Literal["auto", "float32"] = "auto"
    format: Literal["csv", "tsv"] | None = None
    quick: bool = False
    slow: bool = True
    input: str | None = None


def read(line: str) -> Arguments:
    return parse("pretrain", Arguments, line.split(), "Do. Example: bothways pretrain store")


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("s", {}),
        ("s --steps 3 --lr 1e-4 --quick", {"steps": 3, "lr": 1e-4, "quick": True}),
        ("--steps=3 s", {"steps": 3}),
        ("s --top_k 2", {"top_k": 2}),  # underscores are as good as dashes
        ("s --steps 3 --steps 4", {"steps": 4}),
        ("s --steps -1", {"steps": -1}),
        ("s --names a b --quick c", {"names": ("a", "b"), "quick": True, "texts": ("c",)}),
        ("s --names a --names b", {"names": ("a", "b")}),
        ("s --no-slow --no-quick", {"slow": False}),
        ("s --in f --format tsv", {"input": "f", "format": "tsv"}),
        ("s -- --steps -x", {"texts": ("--steps", "-x")}),
        ("s -5 -", {"texts": ("-5", "-")}),
        ("s --in=--odd", {"input": "--odd"}),
    ],
)
def test_words_become_values(line: str, values: dict[str, object]) -> None:
    assert read(line) == Arguments(**{"store": "s", **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("", "pretrain: STORE is missing (bothways pretrain --help has an example)"),
        ("s --steps ten", "pretrain: --steps: expected a whole number, found 'ten'"),
        ("s --steps 1.5", "pretrain: --steps: expected a whole number, found '1.5'"),
        ("s --top-k x", "pretrain: --top-k: expected a whole number, found 'x'"),
        ("s --lr fast", "pretrain: --lr: expected a number, found 'fast'"),
        (
            "s --precision float3",
            "pretrain: --precision: expected one of auto, float32, found 'float3', did you mean 'float32'?",
        ),
        ("s --format x", "pretrain: --format: expected one of csv, tsv, found 'x'"),
        ("s --stepz 3", "pretrain: unknown option --stepz, did you mean '--steps'?"),
        ("s --no-steps", "pretrain: unknown option --no-steps, did you mean '--steps'?"),
        ("s -x", "pretrain: unknown option -x"),
        ("s --steps", "pretrain: --steps: a value is missing, expected a whole number"),
        (
            "s --in --quick",
            "pretrain: --in: a value is missing, expected a text; found --quick (write --in=--quick for a value that "
            "begins so)",
        ),
        ("s --names", "pretrain: --names: a value is missing, expected a list of texts"),
        ("s --quick=yes", "pretrain: --quick: is a switch, and takes no value; found 'yes'"),
        (
            "--names a s",
            "pretrain: STORE is missing; --names takes all words behind it, so write STORE before it (bothways "
            "pretrain --help has an example)",
        ),
    ],
)
def test_a_mistake_is_one_plain_sentence(line: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        read(line)
    assert str(error.value) == sentence


def test_the_words_of_the_help_are_those_of_the_errors(bothways: Run) -> None:
    missing = "SOURCE and --out are missing (bothways tokenizer --help has an example)"
    assert bothways("tokenizer") == (2, "", f"bothways: tokenizer: {missing}\n")


def test_texts_with_blanks_may_begin_with_a_dash_and_words_too_many_are_refused() -> None:
    found = parse("fill", Arguments, ["s", "- a [MASK]", "--in", "-x y"], "Do. Example: bothways fill s")
    assert (found.texts, found.input) == (("- a [MASK]",), "-x y")

    @dataclass(frozen=True)
    class One:
        question: Positional[str]

    with pytest.raises(UserError, match="answer: unexpected argument 'does'; a text of several words stands in quotes"):
        parse("answer", One, ["What", "does", "it"], "Do. Example: bothways answer q")


def test_recipes_speak_the_same_language(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    for value, expected in (('"ten"', "a whole number"), ("true", "a whole number"), ("1.5", "a whole number")):
        recipe.write_text(f"[pretrain]\nsteps = {value}\n")
        with pytest.raises(UserError, match=rf"r.toml: \[pretrain\] steps = .*, expected {expected}$"):
            read(f"s --recipe {recipe}")
    recipe.write_text('[pretrain]\nsteps = 7\nnames = ["a"]\nquick = true\nlr = 1\n')
    found = read(f"s --recipe {recipe} --no-quick")
    assert (found.steps, found.names, found.quick, found.lr) == (7, ("a",), False, 1.0)


def test_help_has_groups_metavars_and_real_defaults(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        read("--steps ten --help")
    shown = capsys.readouterr().out
    usage = "usage: bothways pretrain STORE [TEXT…] [options]"
    assert shown.startswith(f"{usage}\n\nDo.\n\nExample:\n  bothways pretrain store\n")
    assert re.findall(r"^\w.*$", shown, re.MULTILINE)[3:] == ["needed", "usual", "rare"]
    for line in (
        "  --steps N                 how many (default 2000)",
        "  --lr RATE                 how fast, not more than --top-k",  # fields in a text are spelt as flags
        "  --no-slow",
        "  --names TEXT …            of things",
        "  --format csv|tsv",
    ):
        assert line in shown
    assert "None" not in shown


def test_every_help_fits_80_columns_and_names_no_insides(bothways: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    commands = ("demo", "tokenizer", "prepare", "pretrain", "finetune classify", "finetune tag", "evaluate", "explain")
    for command in (*commands, "compare lm", "answer", "chat", "export", "info", "predict"):
        code, shown, _ = bothways(*command.split(), "--help")
        assert code == 0
        assert max(map(len, shown.splitlines())) <= 80, command
        assert "--recipe FILE.toml" in shown
        assert not re.search(r"None|STR\b|MINIMUM|\w_\w+ (says|say)\b", shown), command
    assert METAVARS["size"] == "|".join(SIZES)


def test_help_in_every_spelling(bothways: Run) -> None:
    expected = bothways("fill", "--help")
    assert bothways("help", "fill") == bothways("fill", "-h") == bothways("--help", "fill") == expected
    assert bothways("help") == bothways("--help") == bothways()
    assert bothways("help", "finetune", "tag")[1].startswith("usage: bothways finetune tag --train FILE")
    assert bothways("help", "fil")[2] == bothways("fil")[2]
