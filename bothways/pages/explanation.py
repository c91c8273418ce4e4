"""A page about a model and a text: one file that opens anywhere, with nothing to load from elsewhere."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from bothways.errors import UserError
from bothways.files import write_text
from bothways.pages.pictures import PICTURE_SUFFIXES, draw_attention

SCRIPTS = ("base.js", "attention.js", "views.js", "page.js")  # one function, in this order


@dataclass(frozen=True)
class Explanation:
    """What `m.explain(text)` gives: shows itself in a notebook, and is written as a page or a picture.

    data: what the page shows, arrays packed as `explain.arrays` has them.
    """

    data: dict[str, Any]

    def html(self) -> str:
        """The page, self-contained."""
        static = resources.files("bothways") / "pages" / "static"
        style = (static / "page.css").read_text(encoding="utf-8")
        script = "\n".join((static / name).read_text(encoding="utf-8") for name in SCRIPTS)
        # "</script>" in a text would end the block that it stands in
        content = json.dumps(self.data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
        title = html.escape(self.data["title"][:80])
        return (
            "<!doctype html><html lang=en><head><meta charset=utf-8>"
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{title}</title><style>{style}</style></head><body><main id=page></main>"
            f'<script type="application/json" id=data>{content}</script>'
            f"<script>(() => {{\n'use strict';\n{script}}})();</script></body></html>\n"
        )

    def _repr_html_(self) -> str:
        """In a frame of its own, so that a notebook's styles and names stay apart."""
        page = html.escape(self.html(), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:50rem;border:0"></iframe>'

    def write(self, path: str | Path, layer: int | None = None) -> Path:
        """Write a page (.html) or a picture of attention (.png, .svg; of one layer, counted from 1, or of all).

        Raises UserError for another suffix and a layer that there is not.
        """
        path = Path(path)
        if path.suffix == ".html":
            write_text(path, self.html())
        elif path.suffix in PICTURE_SUFFIXES:
            draw_attention(self.data, path, layer)
        else:
            raise UserError(f"--out {path}: accepted: .html, {', '.join(PICTURE_SUFFIXES)}")
        return path
