"""The suite's own rules: its map names every folder, and what tests need is pinned."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PIN = re.compile(r"[a-z0-9-]+==[0-9][\w.]*")


def test_the_map_names_every_folder_of_tests_and_nothing_that_is_not_there() -> None:
    text = (TESTS / "README.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in TESTS.glob("*/test_*.py")}
    assert {folder for folder in folders if f"`tests/{folder}" not in text} == set()
    for name in re.findall(r"`tests/([\w/.]+)`", text):
        assert (TESTS / name).exists(), name
    files = {path.name for path in TESTS.rglob("test_*.py")}
    assert {name for name in re.findall(r"\btest_\w+\.py", text) if name not in files} == set()


def test_every_room_is_in_the_map() -> None:
    text = (TESTS / "README.md").read_text(encoding="utf-8")
    rooms = {path.parent.name for path in (ROOT / "bothways").glob("*/__init__.py")}
    assert {room for room in rooms if f"`bothways/{room}/" not in text} == set()


def test_what_tests_install_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if not PIN.fullmatch(line)] == []  # no path, no label of a build such as +cpu
    names = {line.partition("==")[0] for line in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked, waiting = {*project["dependencies"]}, ["dev"]
    while waiting:
        for requirement in map(Requirement, extras[waiting.pop()]):
            waiting += sorted(requirement.extras) if requirement.name == "bothways" else []
            asked.add(str(requirement))
    missing = {canonicalize_name(Requirement(line).name) for line in asked} - names - {"bothways"}
    assert missing == set(), "`python tools/pin.py` pins what is installed here"
