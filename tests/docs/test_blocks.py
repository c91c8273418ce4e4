"""Every block of README.md and docs/ runs, page by page, and prints what the page shows.

How a page is written so that it can be tested stands in tests/docs/README.md.
"""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest

from tests.docs.blocks import COMMANDS, ROOT, SESSION, SHOWN, Block, blocks_of, pages
from tests.docs.python_blocks import run_block, small_functions
from tests.docs.shapes import first_difference, is_shown
from tests.docs.shell import NOT_RUN, Shell, commands_of, remove

pytestmark = pytest.mark.slow

NO_STATE = shutil.ignore_patterns("checkpoints")  # what a run resumes from, the larger part of it
PAGES = [page for page in pages() if blocks_of(page)]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page: Path, docs_world: Path, docs_server: str, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    shutil.copytree(docs_world, folder, ignore=NO_STATE)
    shutil.copytree(ROOT / "bothways" / "samples", folder / "bothways" / "samples")
    shutil.copytree(ROOT / "recipes", folder / "recipes")

    def restore(name: str) -> None:
        if (docs_world / name).is_dir():
            remove(folder / name)
            shutil.copytree(docs_world / name, folder / name, ignore=NO_STATE)

    shell = Shell(folder, restore, docs_server)
    namespace: dict[str, object] = {}
    with small_functions(folder, restore, docs_server):
        for block in blocks_of(page):
            if block.language == "python":
                run_block(block, namespace, folder)
            elif block.language in (*COMMANDS, SESSION):
                shell.run(block)
            elif block.language == "json":
                json.loads(block.text)
            elif block.language == "toml":
                tomllib.loads(block.text)
            else:
                assert block.language in SHOWN, f"{block.place}: a block of {block.language!r} is neither run nor shown"


def test_every_reason_not_to_run_a_command_is_needed() -> None:
    blocks = [block for page in PAGES for block in blocks_of(page) if block.language in (*COMMANDS, SESSION)]
    commands = [command for block in blocks for command, _ in commands_of(block)]
    assert [pattern for pattern in NOT_RUN if not any(re.match(pattern, command) for command in commands)] == []


@pytest.mark.parametrize(
    ("shown", "printed", "alike"),
    [
        ("hardware 93.1%", "hardware  7.0%", True),
        ("hardware 93.1%", "billing 93.1%", False),
        ("Fill(token='…', probability=0.31)", "Fill(token='the', probability=1.2e-05)", True),
        ("[1, …]", "[2, 3, 4]", True),
        ("[1, …]", "(2, 3, 4)", False),
        ("step 1,000 of bert2", "step 7 of bert2", True),
        ("step 1,000 of bert2", "step 7 of bert3", False),
    ],
)
def test_shapes(shown: str, printed: str, alike: bool) -> None:
    assert is_shown(shown, printed) == alike


def test_lines_that_are_shown() -> None:
    printed = ["a 1", "b 2", "c 3"]
    assert first_difference(["a 9", "…"], printed) is None
    assert first_difference(["…", "c 3"], printed) is None
    assert "not shown: b 2" in str(first_difference(["a 1"], printed))
    assert "shown:   d" in str(first_difference(["a 1", "d"], printed))


@pytest.mark.slow
@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda path: path.stem)
def test_a_notebook_runs_with_small_models(
    notebook: Path, docs_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cells, in order. `make notebooks` runs them in full."""
    monkeypatch.setenv("MODEL", str(docs_world / "alike"))
    monkeypatch.setenv("MASKED_MODEL", str(docs_world / "run"))
    source = notebook.read_text(encoding="utf-8")
    assert source.startswith("# %% [markdown]\n# # ")
    with small_functions(tmp_path, lambda name: None, ""):
        run_block(Block(notebook, 0, "python", source), {}, tmp_path)
