"""Write the pages of the site that are made of files: docs/recipes.md of recipes/, docs/models.md of the models' cards.

    python tools/site_pages.py

`make docs` runs it, and a test compares the pages with what it would write. Scores of recipes are those of the table in
docs/benchmarks.md, their cost follows from their options; cards are those that `tools/ship_model.py` wrote. Of a model
whose weights are not there yet the page has what packages/bothways-models/cards/ says.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bothways.checkpoint.shipped import CARD, TABLE
from bothways.files import read_json
from bothways.train.budget import tokens_of
from bothways.train.pretrain_options import PretrainOptions
from bothways.verbs.recipes import read_recipe

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tools.model_card import CURVE_FILE, read_card_texts

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
CARDS = ROOT / "packages" / "bothways-models" / "cards"
PACKAGE = ROOT / "packages" / "bothways-models" / "bothways_models"
CURVES = Path("images") / "models"  # of the cards, below docs/
WRITTEN = "<!-- written by tools/site_pages.py: change {source}, not this page -->"

RECIPES_INTRO = """\
A recipe is a TOML file with a table of options for each verb that it is for; options of the command line win over it.
These come with Bothways and are given by name, one of your own by its path (`--recipe mine.toml`). A recipe with more
than one table is given to each of these verbs:

```sh
bothways tokenizer texts/ --recipe bert-mini --out vocabulary
bothways prepare texts/ --tokenizer vocabulary --out store
bothways pretrain store --recipe bert-mini --out run
bothways finetune classify --model run --recipe bert-mini \\
    --train train.csv --eval test.csv --out tickets
```

Tokens are those that the whole run reads; what that takes on your machine is on the line of progress from the first
steps on, and `--minutes` or `--hours` in place of `--steps` makes a run fit."""

MEASURED_INTRO = """\
Measured at one small size and few tokens ([how](benchmarks.md#recipes-benchmarksrecipespy)), which tells these recipes
from each other, and is not what a whole run reaches:"""

MODELS_INTRO = """\
Models that come with Bothways, by name: `bothways VERB --model NAME`, `bw.load("NAME")`. A verb without a model uses
the first that is for it. They lie in a package of their own, which `make demo` and `make test` install
([by hand](installing.md)), and `bothways info NAME` prints a model's card."""


def recipes_page(recipes: Path = ROOT / "recipes", benchmarks: Path = DOCS / "benchmarks.md") -> str:
    """The page of recipes: a table of all, one of those that are measured, then each with its comment and options."""
    paths = sorted(recipes.glob("*.toml"))
    rows, sections = [], []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        tables = tomllib.loads(text)
        pretraining = tables.get("pretrain", {})
        verbs = ", ".join(f"`{verb}`" for verb in tables)
        chosen = [f"`{pretraining[name]}`" if name in pretraining else "" for name in ("size", "objective")]
        rows.append([f"[{path.stem}](#{path.stem})", verbs, *chosen, cost(path, tables)])
        comment, options = split_comment(text)
        sections.append(f"## {path.stem}\n\n{comment}\n\n```toml\n{options}\n```")
    written = WRITTEN.format(source="recipes/")
    all_of_them = table(["recipe", "for", "size", "objective", "tokens"], rows)
    header, scores = measured(benchmarks.read_text(encoding="utf-8"))
    known = table(["recipe", *header], [[f"[{name}](#{name})", *cells] for name, cells in scores.items()])
    return "\n\n".join(["# Recipes", written, RECIPES_INTRO, all_of_them, MEASURED_INTRO, known, *sections]) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]])


def cost(path: Path, tables: Mapping[str, Any]) -> str:
    """Tokens of a recipe's pretraining; nothing where it has none, as rows say what fine-tuning costs."""
    if "pretrain" not in tables:
        return ""
    tokens = tokens_of(PretrainOptions(**read_recipe(str(path), "pretrain", PretrainOptions)))
    return f"{tokens / 1e9:.1f}&nbsp;billion" if tokens >= 1e9 else f"{tokens / 1e6:.0f}&nbsp;million"


def measured(page: str) -> tuple[list[str], dict[str, list[str]]]:
    """The table below `## Recipes` of the page of benchmarks: columns after the first, and each recipe's cells."""
    section = page.partition("\n## Recipes")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    header, _, *body = rows
    return header[1:], {row[0].strip("`"): row[1:] for row in body}


def split_comment(text: str) -> tuple[str, str]:
    """The comment that a recipe begins with, a sentence a line as it stands, and the rest of the file."""
    lines = text.splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.removeprefix("#").strip() for line in lines[:end]), "\n".join(lines[end:]).strip()


def models_page(package: Path = PACKAGE, cards: Path = CARDS) -> str:
    """The page of models: the cards of the shipped ones, in the order of their table; then what the others will be."""
    shipped = list(read_json(package / TABLE))
    planned = [path for path in sorted(cards.glob("*.toml")) if path.stem not in shipped]
    sections = ["# Models", WRITTEN.format(source="packages/bothways-models/"), MODELS_INTRO]
    sections += [card_section(name, (package / "models" / name / CARD).read_text(encoding="utf-8")) for name in shipped]
    if planned:
        texts = {path.stem: read_card_texts(path) for path in planned}
        rows = [[f"`{name}`", of.about, ", ".join(f"`{verb}`" for verb in of.verbs)] for name, of in texts.items()]
        none = "" if shipped else "No weights are shipped yet. "
        said = f"{none}These have a card, and their weights are still to come:"
        sections += ["## Not shipped yet", said, table(["name", "", "for"], rows)]
    return "\n\n".join(sections) + "\n"


def card_section(name: str, card: str) -> str:
    """A card below the page's title: headings a level deeper, its picture the site's, commands only to be read."""
    deeper = re.sub(r"^#", "##", card.strip(), flags=re.MULTILINE)
    shown = re.sub(r"^```\n(.*?)^```$", r"```text\n\1```", deeper, flags=re.MULTILINE | re.DOTALL)
    return shown.replace(f"]({CURVE_FILE})", f"]({(CURVES / name).as_posix()}.svg)")


def curves(package: Path = PACKAGE) -> dict[Path, bytes]:
    """The cards' pictures by their place below docs/."""
    models = {name: package / "models" / name / CURVE_FILE for name in read_json(package / TABLE)}
    return {CURVES / f"{name}.svg": file.read_bytes() for name, file in models.items() if file.is_file()}


def site_pages() -> dict[Path, bytes]:
    """All that is written, by its place below docs/."""
    return {Path("recipes.md"): recipes_page().encode(), Path("models.md"): models_page().encode(), **curves()}


def write_site_pages() -> None:
    """Write the pages, and remove pictures of models that are gone."""
    pages = site_pages()
    for file in (DOCS / CURVES).glob("*.svg"):
        if file.relative_to(DOCS) not in pages:
            file.unlink()
    for place, content in pages.items():
        (DOCS / place).parent.mkdir(parents=True, exist_ok=True)
        if not (DOCS / place).is_file() or (DOCS / place).read_bytes() != content:
            (DOCS / place).write_bytes(content)


if __name__ == "__main__":
    write_site_pages()
