"""A page about a model and a text: one file that opens anywhere, with nothing to load from elsewhere."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from bothways.errors import UserError, option
from bothways.files import to_json, write_text
from bothways.pages.pictures import GENERATOR, PICTURE_SUFFIXES, draw_attention

STATIC = resources.files("bothways") / "pages" / "static"
PAGE_MODULES = (  # each after those that it imports
    "geometry.js", "store.js", "arrays.js", "colours.js", "dom.js", "charts.js", "matrices.js", "tokens.js",
    "thumbnails.js", "matrix_figure.js", "lines_figure.js", "attention.js", "steps.js", "embeddings.js",
    "positions.js", "predictions.js", "checkpoints.js", "page.js",
)  # fmt: skip
TITLE_CHARACTERS = 80  # of a text that is a page's title
IMPORT_STATEMENT = re.compile(r"^import (\{[^}]*\}) from '\./(.+?)';$", re.MULTILINE)
EXPORT_KEYWORD = re.compile(r"^export (?=(?:async )?(?:const|function|class) (\w+))", re.MULTILINE)


def is_explanation(path: Path) -> bool:
    """Whether a file is a page or a picture that was written here, by what its first bytes say of its origin."""
    with path.open("rb") as file:
        return GENERATOR.encode() in file.read(4096)


def join_modules(names: Sequence[str], folders: Sequence[Traversable] = (STATIC,)) -> str:
    """The ES modules of these folders, in this order, become one script that a page holds: each is a function of its
    own that returns its exports, so that no name of a file is seen in another without an import."""
    functions = []
    for name in names:
        folder = next(folder for folder in folders if (folder / name).is_file())
        source = (folder / name).read_text(encoding="utf-8")
        exports = ", ".join(EXPORT_KEYWORD.findall(source))
        body = IMPORT_STATEMENT.sub(r"const \1 = modules['\2'];", EXPORT_KEYWORD.sub("", source))
        functions.append(f"modules['{name}'] = (() => {{\n{body}return {{ {exports} }};\n}})();\n")
    return "'use strict';\nconst modules = {};\n" + "".join(functions)


def read_styles(name: str) -> str:
    """A style sheet of `static/`, with that of what scrolls, which every page has."""
    return "".join((STATIC / file).read_text(encoding="utf-8") for file in (name, "scrolling.css"))


@dataclass(frozen=True)
class Explanation:
    """What `m.explain(text)` gives: it shows itself in a notebook, and is written as a page or a picture.

    data: what the page shows (`explain.page_data.page_data`), arrays compressed as `pages.arrays` has them.
    """

    data: dict[str, Any]

    def __repr__(self) -> str:
        return (
            f"Explanation({self.data['title'][:TITLE_CHARACTERS]!r} by {self.data['model']['name']}, "
            f'{len(self.data["tokens"])} tokens; write("page.html") makes a page)'
        )

    def html(self) -> str:
        """The page, self-contained."""
        style = read_styles("page.css")
        # "</script>" in a text would end the block that it stands in
        content = to_json(self.data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
        title = html.escape(self.data["title"][:TITLE_CHARACTERS])
        return (
            "<!doctype html><html lang=en><head><meta charset=utf-8>"
            f'<meta name="generator" content="{GENERATOR}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{title}</title><style>{style}</style></head><body><main id=page></main>"
            f'<script type="application/json" id=data>{content}</script>'
            f"<script>(() => {{\n{join_modules(PAGE_MODULES)}}})();</script></body></html>\n"
        )

    def _repr_html_(self) -> str:
        """The page in a frame of its own, so that a notebook's styles and names stay apart."""
        page = html.escape(self.html(), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:50rem;border:0"></iframe>'

    def write(self, path: str | Path, layer: int | None = None) -> Path:
        """Write a page (.html) or a picture of attention (.png, .svg; of one layer, counted from 1, or of all), and
        return its path. Raises UserError for another suffix, and for a layer that the model does not have."""
        path = Path(path)
        if path.suffix == ".html":
            write_text(path, self.html())
        elif path.suffix in PICTURE_SUFFIXES:
            draw_attention(self.data, path, layer)
        else:
            raise UserError(f"{option('out', path)}: accepted: .html, {', '.join(PICTURE_SUFFIXES)}")
        return path
