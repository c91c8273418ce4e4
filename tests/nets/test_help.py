"""Every verb's --help at a fixed width: options, their names, order, defaults, texts and examples."""

from __future__ import annotations

import re

import pytest

from tests.nets.golden import check, environment, run

TASKS = ("classify", "answer", "tag", "choose", "instruct", "similar")
VERBS = [
    "demo",
    "tokenizer",
    "prepare",
    "join",
    "pretrain",
    "finetune",
    "evaluate",
    "predict",
    "compare",
    "fill",
    "classify",
    "tag",
    "answer",
    "generate",
    "score",
    "suggest",
    "chat",
    "embed",
    "similar",
    "rerank",
    "export",
    "bench",
    "explain",
    "serve",
    "info",
]
COMPARED = (("compare", "classify"), ("compare", "lm"))
COMMANDS: list[tuple[str, ...]] = [(), *((verb,) for verb in VERBS), *(("finetune", task) for task in TASKS), *COMPARED]
PLAIN = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "FORCE_COLOR": "", "TTY_COMPATIBLE": "0"}


def golden(command: tuple[str, ...]) -> str:
    return f"help/{'-'.join(command) or 'bothways'}.txt"


def snapshot(command: tuple[str, ...]) -> str:
    with environment(PLAIN):
        shown = run(*command, "--help")
    return "\n".join(line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()) + "\n"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_is_what_it_was(command: tuple[str, ...]) -> None:
    check(golden(command), snapshot(command), "help")


def test_no_verb_is_left_out() -> None:
    assert re.findall(r"^  (\S+)  ", snapshot(()), re.MULTILINE) == VERBS
