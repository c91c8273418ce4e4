"""The shell's side of a page: its commands in this process, each as it stands, with what makes it small behind it.

What is done with a command is in tables: SMALL has the options that are given behind those of the page, so that a
training takes a second; NOT_RUN the commands that are only read, each with the reason. A command of ours that is not
run goes through its option parser all the same.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from bothways.cli import main
from bothways.verbs import flags
from tests.docs.blocks import ROOT, Block
from tests.docs.shapes import first_difference

SERVER = "http://127.0.0.1:8080"  # what pages write; the server of the tests listens elsewhere

SMALL: dict[str, tuple[str, ...]] = {
    "prepare": ("--workers", "1"),
    "pretrain": ("--size", "tiny", "--steps", "2", "--tokens-per-step", "256", "--sequence-length", "32"),
    "finetune": ("--steps", "2", "--batch-size", "4"),
    "compare classify": ("--steps", "2", "--batch-size", "4"),
    "generate": ("--max-tokens", "4"),
    "chat": ("--max-tokens", "4"),
}
SMALL_WHERE_GIVEN = {"--batch": "1", "--keep-layers": "1"}  # a tiny run has four steps, its model two layers

NOT_RUN: dict[str, str] = {
    r"make \w+": "installs packages and takes minutes; the target is looked up in the Makefile",
    r"git clone ": "needs a network",
    r"\S*python3? -m venv ": "makes an environment",
    r"(\S*python3? -m )?pip ": "needs a package index; the extras are looked up in pyproject.toml",
    r"python (benchmarks|tools)/": "takes minutes; the script is looked up, and its options in its source",
    r"(tar|cat \S+ \| tar) ": "packs what is made elsewhere",
    r"torchrun ": "several processes, in tests/train/test_distributed.py; the command of ours is parsed",
    r"bothways serve\b": "does not end by itself; tests/serve",
    r"bothways .*\bs3://": "needs a bucket; the same way is gone in tests/test_object_storage.py",
    r"bothways demo\b": "takes minutes; tests/pages/test_demo_page.py",
    r"bothways compare lm\b": "trains five models; tests/baselines/test_language.py",
    r"bothways bench\b": "measures for a quarter of a minute; tests/inference",
    r"bothways export onnx\b": "compiles for a quarter of a minute; tests/inference",
    r"bothways pretrain .*--(hours|minutes)\b": "measures the machine first; tests/train/test_budget.py",
}
TOOLS = ("cat", "head", "ls", "cp", "mkdir", "printf", "rm")


class Parsed(Exception):  # noqa: N818, no error
    """The option parser has taken a command."""


class Terminal(io.StringIO):
    """A standard input at which nobody types."""

    def isatty(self) -> bool:
        return True


@dataclass(frozen=True)
class Shell:
    """Runs blocks of commands in a folder.

    restore: puts back, by its name, what a page made small and the tests have large. address: of the server.
    """

    folder: Path
    restore: Callable[[str], None]
    address: str

    def run(self, block: Block) -> None:
        """Run a block. Raises AssertionError where a command fails, or prints something else than is shown."""
        for command, shown in commands_of(block):
            with contextlib.chdir(self.folder):
                printed = self._command(command)
            if shown and printed is not None:
                difference = first_difference(shown, printed.splitlines())
                assert difference is None, f"{block.place}: {command}\n{difference}\nall of it:\n{printed}"

    def _command(self, command: str) -> str | None:
        """What a line prints; None if it is only read."""
        if any(re.match(pattern, command) for pattern in NOT_RUN):
            for part in cut(command):
                check(part)
            return None
        piped: str | None = None
        *steps, last = cut(command)
        for words in steps:
            piped = self._step(words, piped)
        target = None
        if ">" in last:
            at = last.index(">")
            last, target = last[:at], last[at + 1]
        piped = self._step(last, piped)
        if target is not None:
            Path(target).write_text(piped, encoding="utf-8")
            return ""
        return piped

    def _step(self, words: list[str], piped: str | None) -> str:
        program, *rest = words
        if program == "bothways":
            return self._bothways(rest, piped)
        if program == "jq":
            return "\n".join(json.dumps(json.loads(line), indent=2) for line in (piped or "").splitlines())
        if program == "curl":
            return fetch(rest, self.address)
        assert program in TOOLS, f"{shlex.join(words)}: neither run nor in NOT_RUN, with the reason"
        return subprocess.run(words, input=piped, capture_output=True, text=True, check=True).stdout

    def _bothways(self, words: Sequence[str], piped: str | None) -> str:
        parse_only(words)
        out = words[words.index("--out") + 1] if "--out" in words else None
        if out is not None:
            remove(Path(out))
        printed, said = io.StringIO(), io.StringIO()
        stdin = Terminal() if piped is None else io.StringIO(piped)
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(said),
            mock.patch.object(sys, "stdin", stdin),
        ):
            try:
                code = main(small(words))
            except SystemExit as exit:  # of --help
                code = int(exit.code or 0)
        assert code == 0, f"bothways {shlex.join(words)}: exit {code}\n{said.getvalue()}"
        if out is not None:
            self.restore(out)
        return printed.getvalue()


def commands_of(block: Block) -> Iterator[tuple[str, list[str]]]:
    """The commands of a block, without comments, and the lines that each is shown to print."""
    text = block.text.replace("\\\n", " ")
    if block.language != "console":
        yield from ((line.strip(), []) for line in text.splitlines() if line.strip() and line.lstrip()[0] != "#")
        return
    command, shown = "", list[str]()
    for line in [*text.splitlines(), "$ "]:
        if line.startswith("$ "):
            if command:
                yield command, shown
            command, shown = line[2:], []
        else:
            shown.append(line)


def cut(command: str) -> list[list[str]]:
    """The words of a line, cut at pipes and `&&`; of a redirection `>` is a word."""
    reader = shlex.shlex(command, posix=True, punctuation_chars=True)
    reader.whitespace_split = True
    parts: list[list[str]] = [[]]
    for word in reader:
        if word in ("|", "&&", ";"):
            parts.append([])
        else:
            parts[-1].append(word)
    return [part for part in parts if part]


def small(words: Sequence[str]) -> list[str]:
    """The words of a command of ours, with SMALL's behind them."""
    more = list(SMALL.get(" ".join(words[:2]), SMALL.get(words[0], ())))
    if words[0] == "pretrain" and "--model" in words:  # which has its size
        without(more, "--size")
    if "--recipe" in words and words[0] == "pretrain":
        recipe = ROOT / "recipes" / f"{words[words.index('--recipe') + 1]}.toml"
        if "phases" in tomllib.loads(recipe.read_text(encoding="utf-8")).get("pretrain", {}):
            without(more, "--sequence-length")
            more += ["--phases", "16:0.5", "32:0.5"]
    for option, value in SMALL_WHERE_GIVEN.items():
        more += [option, value] if option in words else []
    return [*words, *more] if "--help" not in words else list(words)


def without(words: list[str], option: str) -> None:
    at = words.index(option)
    del words[at : at + 2]


def parse_only(words: Sequence[str]) -> None:
    """Let the verb's own option parser read a command, exactly as it stands, and nothing else happen."""
    if words[0] in ("help", "--version", "--help", "info") or "--help" in words:
        return
    importlib.import_module("bothways.demo.run" if words[0] == "demo" else f"bothways.verbs.{words[0]}")
    importlib.import_module("bothways.verbs.compare_lm")

    def parse(*arguments: object, **keywords: object) -> None:
        flags_parse(*arguments, **keywords)  # type: ignore[arg-type]
        raise Parsed

    flags_parse = flags.parse
    with contextlib.ExitStack() as patches:
        for module in [m for name, m in sys.modules.items() if name.startswith("bothways.")]:
            if getattr(module, "parse", None) is flags_parse:
                patches.enter_context(mock.patch.object(module, "parse", parse))
        said = patches.enter_context(contextlib.redirect_stderr(io.StringIO()))
        try:
            main(list(words))
        except Parsed:
            return
    raise AssertionError(f"bothways {shlex.join(words)}: {said.getvalue()}")


def check(words: list[str]) -> None:
    """What can be known of a command that is not run: its options, its file, its target, its extras."""
    line = shlex.join(words)
    if "bothways" in words and words[0] in ("bothways", "torchrun"):
        parse_only(words[words.index("bothways") + 1 :])
    elif words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), f"{line}: no such target"
    elif words[0] == "python" and words[1].endswith(".py"):
        script = ROOT / words[1]
        assert script.is_file(), f"{line}: no such file"
        known = "".join(path.read_text(encoding="utf-8") for path in script.parent.glob("*.py"))
        for word in (word.strip("[]") for word in words[2:]):
            if word.startswith("--"):
                name = word.removeprefix("--").replace("-", "_")
                assert word in known or re.search(rf"\b{name}\b", known), f"{line}: no option {word}"
    elif "install" in words:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for found in re.findall(r"(?:^|\s|')(?:\.|bothways ?)\[([\w,]+)\]", line):
            assert set(found.split(",")) <= set(project["optional-dependencies"]), f"{line}: no such extra"


def fetch(words: Sequence[str], address: str) -> str:
    """What curl prints of a request: an address, headers and a body."""
    headers, body, url = {}, None, ""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "-H":
            name, _, value = rest.pop(0).partition(":")
            headers[name.strip()] = value.strip()
        elif word == "-d":
            body = rest.pop(0).encode()
        elif word != "-s":
            url = word
    request = urllib.request.Request(url.replace(SERVER, address), body, headers)
    with urllib.request.urlopen(request, timeout=30) as reply:
        text: str = reply.read().decode()
    return text


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
