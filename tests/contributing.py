"""CONTRIBUTING.md as a program: its code blocks, carried out on a copy of the package, section by section."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTEST = ".venv/bin/python -m pytest "
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(section: str) -> list[tuple[str, str]]:
    """The code blocks of a section, in order: language, and content."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    _, _, behind = text.partition(f"\n## {section}\n")
    return [(found[1], found[2]) for found in BLOCK.finditer(behind.partition("\n## ")[0])]


def copy_package(folder: Path) -> None:
    """The package under `folder`, its compiled libraries with it."""
    shutil.copytree(ROOT / "bothways", folder / "bothways", ignore=shutil.ignore_patterns("__pycache__"))


def copy_tests(folder: Path, *names: str) -> None:
    """These test files under `folder`, and what tests share."""
    for name in (*names, "__init__.py", "helpers.py", "shipped.py", "conftest.py"):
        (folder / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "tests" / name, folder / "tests" / name)
    for path in (folder / "tests").iterdir():
        if path.is_dir():
            (path / "__init__.py").touch()
    shutil.copy(ROOT / "pyproject.toml", folder)


def carry_out(section: str, folder: Path, *, before: str = "", after: str = "") -> subprocess.CompletedProcess[str]:
    """Do what a section of CONTRIBUTING.md says: write its files, edit those it edits, run its commands and its Python.

    folder: has the copy of the package, and is where the commands run. before, after: Python that runs in the same
    process as the section's, around it. All commands run in one process, which is quicker than one for each.
    """
    program = ["import shlex", "from bothways.cli import main", before]
    for language, content in blocks(section):
        path = re.match(r"# ((?:bothways|tests)/\S+\.py)\n", content)
        if language == "diff":
            assert path is not None
            edit(folder / path[1], content.splitlines()[1:])
        elif path is not None:
            (folder / path[1]).write_text(content.partition("\n")[2], encoding="utf-8")
        elif language == "console":
            program += commands(content)
        else:
            program.append(content)
    program.append(after)
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {**ours, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", "\n".join(program)], cwd=folder, env=environment, capture_output=True, text=True
    )


def commands(content: str) -> Iterator[str]:
    """Python that runs a block's commands: Bothways' own, and pytest."""
    for line in content.splitlines():
        if line.startswith(PYTEST):
            yield f"import pytest; assert pytest.main(shlex.split({line.removeprefix(PYTEST)!r})) == 0"
        else:
            assert line.startswith("bothways "), line
            yield f"assert main(shlex.split({line!r})[1:]) == 0"


def edit(path: Path, lines: list[str]) -> None:
    """Apply a diff: lines with + come behind the line before them, which is in the file once; lines with - go."""
    text = path.read_text(encoding="utf-8")
    anchor = ""
    for line in lines:
        assert line[0] in " +-", line
        if line.startswith("+"):
            assert text.count(f"{anchor}\n") == 1, (path, anchor)
            text = text.replace(f"{anchor}\n", f"{anchor}\n{line[1:]}\n")
        anchor = line[1:]
    for line in lines:
        if line.startswith("-"):
            text = text.replace(f"{line[1:]}\n", "", 1)
    path.write_text(text, encoding="utf-8")
