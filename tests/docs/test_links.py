"""What pages lead to is there: files, anchors, places in the code. What lies elsewhere is listed by `python -m
tests.docs.external_links`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, anchors_of, links_of, pages

IN_CODE = re.compile(r"`(bothways/[\w/]+\.py)(?:: ([\w.]+))?`")
ARCHITECTURE = ROOT / "docs" / "architecture.md"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in links_of(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        outside = ROOT / "docs" in page.parents and ROOT / "docs" not in target.parents
        if outside or not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_places_in_the_code_are_there(page: Path) -> None:
    lost = [place for place in IN_CODE.findall(page.read_text(encoding="utf-8")) if not is_there(*place)]
    assert lost == []


def is_there(path: str, name: str) -> bool:
    """Whether a file defines a function, a class, or a method; or is there at all, where no name is given."""
    if not (ROOT / path).is_file():
        return False
    body: list[ast.stmt] = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
    for part in name.split(".") if name else ():
        found = [node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part]
        if not found:
            return False
        body = found[0].body
    return True


def test_a_texts_journey_has_ten_stops() -> None:
    stops = re.findall(r"^\| (\d+) \| `(bothways/\S+\.py): ", ARCHITECTURE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(number) for number, _ in stops] == list(range(1, 11))


def test_the_tree_has_every_room_and_nothing_that_is_gone() -> None:
    tree = ARCHITECTURE.read_text(encoding="utf-8").partition("## The tree")[2]
    top = {path.name for path in (ROOT / "bothways").iterdir() if not path.name.startswith(("__", "."))} - {"py.typed"}
    missing = sorted(name for name in top if not re.search(rf"\b{re.escape(name)}(/|\b)", tree))
    assert missing == []
    files = {path.name for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    assert sorted(set(re.findall(r"\b[a-z_]+\.py\b", tree)) - files) == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130
