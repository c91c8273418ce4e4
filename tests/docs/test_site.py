"""The site builds without a warning, has every page, and asks nothing from the network."""

from __future__ import annotations

import contextlib
import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import TimeoutError

from tests.docs.blocks import ROOT

ELSEWHERE = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)=["']?(?:https?:)?//[^>]*>""")
CSS_ELSEWHERE = re.compile(r"(?:@import|url\()\s*[\"']?(?:https?:)?//")
WIDTHS = (390, 1280)


def navigation() -> list[str]:
    """The pages in mkdocs.yml, in order."""

    def pages_in(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        elif isinstance(entry, dict):
            for value in entry.values():
                yield from pages_in(value)
        else:
            for value in entry:
                yield from pages_in(value)

    return list(pages_in(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from copies of what it is made of."""
    pytest.importorskip("zensical")
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    (folder / "bothways").symlink_to(ROOT / "bothways")
    command = [str(Path(sys.executable).parent / "zensical"), "build", "--strict"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    assert "No issues found" in built.stdout + built.stderr
    return folder / "site"


def test_every_page_is_in_the_navigation_and_in_llms_txt() -> None:
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert set(navigation()) == pages
    listed = re.findall(r"\]\(([\w/-]+\.md)\)", (ROOT / "docs" / "llms.txt").read_text(encoding="utf-8"))
    assert [page for page in navigation() if page != "index.md"] == listed


def test_pages_are_built_and_name_nothing_elsewhere(site: Path) -> None:
    for page in navigation():
        html = (site / page).with_suffix(".html").read_text(encoding="utf-8")
        assert ELSEWHERE.findall(html) == [], page
    for sheet in site.rglob("*.css"):
        assert CSS_ELSEWHERE.findall(sheet.read_text(encoding="utf-8")) == [], sheet
    assert (site / "llms.txt").is_file()


def test_the_python_page_has_the_docstrings(site: Path) -> None:
    html = (site / "api.html").read_text(encoding="utf-8")
    assert "One model, ready to answer." in html
    assert 'id="bothways.Predictor.classify"' in html


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_browser_asks_the_site_alone_and_nothing_is_too_wide(address: str, browser: Any) -> None:
    for width in WIDTHS:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme="dark")
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        for name in ("index", "architecture", "api"):
            assert page.goto(f"{address}/{name}.html").ok
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, width)
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
        context.close()


def test_the_search_finds_a_page(address: str, browser: Any) -> None:
    page = browser.new_page()
    page.goto(f"{address}/index.html")
    found = page.get_by_text("make it fit into memory").first
    for milliseconds in (2_000, 4_000, 8_000, 16_000):  # keys that are pressed before its script is ready are lost
        page.keyboard.press("Control+k")
        page.keyboard.type("memory")
        with contextlib.suppress(TimeoutError):
            found.wait_for(timeout=milliseconds)
            break
        page.keyboard.press("Escape")
    assert found.is_visible()
    page.close()
