"""The code blocks and links of the pages: README.md and docs/, read by the parser that reads a user's Markdown."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
COMMANDS = ("sh", "")  # a command a line
SESSION = "console"  # `$ command` lines, and what each prints below it
SHOWN = ("text", "json", "toml", "yaml", "mermaid")  # nothing to run

_ANCHOR = re.compile(r"[^\w\- ]")


@dataclass(frozen=True)
class Block:
    """A fenced block: the page it is on, the line it begins at, its language and its text."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """README.md and every page below docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(page: Path) -> list[Block]:
    return [
        Block(page, token.map[0] + 1, token.info.strip().split(" ")[0], token.content)
        for token in _tokens(page)
        if token.type == "fence" and token.map is not None
    ]


def links_of(page: Path) -> list[str]:
    """Where the links and pictures of a page lead, in order."""
    found = []
    for token in _tokens(page):
        for child in token.children or ():
            target = child.attrs.get("href", child.attrs.get("src"))
            if target is not None:
                found.append(str(target))
    return found


def anchors_of(page: Path) -> set[str]:
    """The anchors that a page's headings have, as GitHub and the site name them."""
    found: set[str] = set()
    tokens = list(_tokens(page))
    for heading, inline in itertools.pairwise(tokens):
        if heading.type == "heading_open":
            title = "".join(child.content for child in inline.children or ())
            anchor = _ANCHOR.sub("", title.lower()).strip().replace(" ", "-")
            found.add(anchor)
    return found


def _tokens(page: Path) -> Iterator[Token]:
    yield from MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))
