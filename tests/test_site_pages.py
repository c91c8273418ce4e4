"""The pages that are made of files say what the files say: recipes with cost and score, cards of models."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, anchors_of, blocks_of
from tools.site_pages import CARDS, DOCS, card_section, curves, measured, models_page, recipes_page, site_pages

CARD = "# mini\n\nReads.\n\n```\nbothways fill --model mini …\n```\n\n## Data\n\nMuch.\n\n![the loss](curve.svg)\n"
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with two shipped models, one of which has a curve."""
    for name in ("writer", "mini"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "README.md").write_text(CARD.replace("mini", name), encoding="utf-8")
    (tmp_path / "models" / "mini" / "curve.svg").write_text("<svg/>")
    table = {"writer": {"verbs": ["generate"], "about": "…"}, "mini": {"verbs": ["fill"], "about": "…"}}
    (tmp_path / "models.json").write_text(json.dumps(table))
    return tmp_path


@pytest.mark.parametrize("place", sorted(map(str, site_pages())))
def test_pages_are_fresh(place: str) -> None:
    there = (DOCS / place).read_bytes() if (DOCS / place).is_file() else b""
    assert there == site_pages()[Path(place)], f"python tools/site_pages.py writes docs/{place} anew"


def test_every_recipe_has_its_row_its_comment_and_its_options() -> None:
    page, names = recipes_page(), [recipe.stem for recipe in RECIPES]
    rows = re.findall(r"^\| \[([\w-]+)\]\(#\1\)", page, re.MULTILINE)
    assert rows[: len(names)] == names
    assert rows[len(names) :] == list(measured((DOCS / "benchmarks.md").read_text(encoding="utf-8"))[1])
    shown = [tomllib.loads(block.text) for block in blocks_of(DOCS / "recipes.md") if block.language == "toml"]
    assert shown == [tomllib.loads(recipe.read_text(encoding="utf-8")) for recipe in RECIPES]
    assert {recipe.stem for recipe in RECIPES} <= anchors_of(DOCS / "recipes.md")
    assert "As ALBERT (Lan et al. 2019)" in page


def test_cost_follows_from_the_options_and_scores_from_the_benchmark(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    options = 'size = "mini"\nsteps = 1000\ntokens_per_step = 4096\nphases = ["128:0.5", "512:0.5:8192"]\n'
    (tmp_path / "r" / "a.toml").write_text(f"# For a test.\n[pretrain]\n{options}")
    (tmp_path / "r" / "b.toml").write_text("# Rows.\n[finetune]\nepochs = 2\n")
    table = "\n## Recipes: x\n\n| recipe | loss |\n|---|---|\n| `b` | 6.5 |\n\n## Other\n\n| `a` | 7.5 |\n"
    (tmp_path / "benchmarks.md").write_text(table)
    page = recipes_page(tmp_path / "r", tmp_path / "benchmarks.md")
    assert "| [a](#a) | `pretrain` | `mini` |  | 6&nbsp;million |" in page  # 500 × 4,096 + 500 × 8,192
    assert "| [b](#b) | `finetune` |  |  |  |" in page
    assert "| [b](#b) | 6.5 |" in page
    assert "## a\n\nFor a test.\n\n```toml\n[pretrain]\nsize" in page


def test_every_score_of_the_benchmark_is_a_recipes() -> None:
    scores = measured((DOCS / "benchmarks.md").read_text(encoding="utf-8"))[1]
    assert scores.keys() <= {recipe.stem for recipe in RECIPES}
    assert scores["bert-mini"][1] in recipes_page()


def test_models_without_any_with_some_and_with_all(package: Path, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    (nothing / "models.json").write_text("{}")
    page = models_page(nothing)
    assert "No weights are shipped yet" in page
    assert all(f"| `{path.stem}` |" in page for path in CARDS.glob("*.toml"))
    page = models_page(package)
    assert page.index("\n## writer\n") < page.index("\n## mini\n") < page.index("\n## Not shipped yet\n")
    assert "| `mini` |" not in page
    assert "| `answers` | finds the answer" in page
    assert "No weights" not in page
    few = tmp_path / "cards"
    few.mkdir()
    shutil.copy(CARDS / "mini.toml", few)
    assert "Not shipped" not in models_page(package, few)


def test_a_card_stands_below_the_pages_title_and_its_picture_is_the_sites(package: Path) -> None:
    section = card_section("mini", CARD)
    assert section.startswith("## mini\n")
    assert "\n### Data\n" in section
    assert "```text\nbothways fill --model mini …\n```" in section  # to be read; a test runs what has no language
    assert "![the loss](images/models/mini.svg)" in section
    assert curves(package) == {Path("images/models/mini.svg"): b"<svg/>"}
