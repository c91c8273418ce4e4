"""What the files beside the package say of it: versions, commands, limits, hooks, the licence."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from bothways.serve.limits import Limits
from bothways.version import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RULE = re.compile(r"^([a-z]+):(?!=)", re.MULTILINE)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_version_and_licence_are_the_same_everywhere() -> None:
    cited: dict[str, Any] = yaml.safe_load(read("CITATION.cff"))
    assert PROJECT["version"] == cited["version"] == __version__
    assert re.search(
        rf"^## \[{re.escape(__version__)}\]|will be {re.escape(__version__)}\b", read("CHANGELOG.md"), re.M
    )
    licence = read("LICENSE")
    assert PROJECT["license"] == cited["license"] == re.search(r"SPDX-License-Identifier: (\S+)", licence)[1]
    assert "https://www.apache.org/licenses/LICENSE-2.0" in licence
    assert PROJECT["urls"]["Documentation"].startswith(cited["repository-code"])


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")
def test_make_help_names_every_command_and_the_texts_name_no_other() -> None:
    # without what a make that runs this test tells the makes below it
    outside = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    told = subprocess.run(["make", "help"], cwd=ROOT, env=outside, capture_output=True, text=True, check=True)
    shown = told.stdout
    rules = set(RULE.findall(read("Makefile")))
    assert {line.split()[1] for line in shown.splitlines()} == rules
    phony = re.search(r"^\.PHONY: (.*)$", read("Makefile"), re.M)
    assert phony is not None
    assert set(phony[1].split()) == rules
    for name in ("CONTRIBUTING.md", "SECURITY.md", "README.md"):
        assert set(re.findall(r"(?:^|`)make ([a-z]+)", read(name), re.M)) <= rules, name


def test_hooks_call_what_lint_calls_and_have_no_versions() -> None:
    lint = read("Makefile").partition("\nlint:")[2].partition("\n\n")[0]
    called = {Path(line.split()[0]).name for line in lint.splitlines() if line.startswith("\t$(BIN)/")}
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert repository["repo"] == "local"
    entries = [hook["entry"].split() for hook in repository["hooks"]]
    assert {Path(entry[0]).name for entry in entries} == called
    assert all(entry[0].startswith(".venv/bin/") for entry in entries)


def test_the_servers_limits_are_those_that_security_names() -> None:
    limits, said = Limits(), read("SECURITY.md")
    for value, unit in (
        (limits.max_requests, "requests at a time"),
        (limits.max_body, "bytes a request"),
        (limits.max_texts, "texts a request"),
        (limits.max_characters, "characters a text"),
    ):
        assert f"{value:,} {unit}" in said
    assert f"{limits.timeout:.0f} seconds for an answer" in said


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("import { nothing } from './dom.js';\nnothing();", 'named import "nothing" not found'),
        ("let x = ;", "Unexpected token"),
        ("console.log(nowhere);", "'nowhere' is not defined"),
        ("const unused = 1;", "'unused'"),
        ("export const half = (x) => x / 2;", ""),
    ],
)
def test_the_check_of_scripts_finds_what_breaks_a_page(script: str, found: str, tmp_path: Path) -> None:
    oxlint = Path(sys.executable).parent / "oxlint"
    if not oxlint.exists():
        pytest.skip("oxlint is not installed")
    (tmp_path / "dom.js").write_text("export const el = 1;\n")
    (tmp_path / "some.js").write_text(f"{script}\n")
    command = [str(oxlint), "--config", str(ROOT / ".oxlintrc.json"), "--deny-warnings", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode != 0) is bool(found), done.stdout
    assert found in done.stdout


def test_links_between_the_files_lead_somewhere() -> None:
    for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "CODE_OF_CONDUCT.md"):
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", read(name)):
            assert (ROOT / link).exists(), (name, link)
