"""The pages in a real browser, Debian's Chromium: every verb shows its answer, and nothing else is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bothways
from bothways.pages.explanation import EXPORT_KEYWORD, IMPORT_STATEMENT, STATIC
from bothways.serve.pages import DOCS_MODULES, PLAYGROUND_MODULES
from tests.serve.conftest import served_predictor

OWN = Path(bothways.__file__).parent / "serve" / "static"
# What an answer has in it, by model and verb.
SHOWN = {
    ("classify", "classify"): ".bars li",
    ("tag", "tag"): ".marked",
    ("answer", "answer"): ".marked",
    ("pretrained", "fill"): ".bars li",
    ("pretrained", "next_sentence"): ".bars li",
    ("pretrained", "score"): ".piece",
    ("causal", "generate"): ".piece",
    ("causal", "suggest"): ".bars li",
    ("instruct", "chat"): ".marked",
    ("similar", "similar"): ".cosine",
    ("nli", "rerank"): "td",
    ("similar", "embed"): ".vector span",
}


def source(name: str) -> str:
    return ((OWN / name) if (OWN / name).exists() else Path(str(STATIC / name))).read_text(encoding="utf-8")


@pytest.mark.parametrize("modules", [PLAYGROUND_MODULES, DOCS_MODULES])
def test_every_module_stands_behind_those_that_it_imports(modules: tuple[str, ...]) -> None:
    for place, name in enumerate(modules):
        for names, imported in IMPORT_STATEMENT.findall(source(name)):
            assert imported in modules[:place], (name, imported)
            assert set(re.findall(r"\w+", names)) <= set(EXPORT_KEYWORD.findall(source(imported))), (name, imported)
    for path in OWN.iterdir():
        lines = path.read_text(encoding="utf-8").splitlines()
        assert [number for number, line in enumerate(lines, 1) if len(line) > 120] == [], path.name
        assert path.suffix == ".css" or lines[0].startswith("// "), path.name
        assert len(lines) <= 250


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Any]:
    """Opens the page with what is asked in its link; at the end nothing was complained of or asked elsewhere."""
    said: list[str] = []
    context = browser.new_context()

    def make(path: str = "/", **viewport: Any) -> Any:
        page = context.new_page()
        for name, value in viewport.items():
            page.set_viewport_size(value) if name == "size" else page.emulate_media(color_scheme=value)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request", lambda request: None if request.url.startswith((address, "data:")) else said.append(request.url)
        )
        page.goto(address + path)
        page.wait_for_function("window.bothways && window.bothways.ready")
        page.evaluate("() => window.bothways.ready")
        return page

    make.said = said  # type: ignore[attr-defined]
    yield make
    context.close()
    assert said == []


@pytest.mark.parametrize(("model", "verb"), SHOWN)
def test_every_verb_shows_its_answer(opened: Any, model: str, verb: str) -> None:
    page = opened(f"/#model={model}&verb={verb}")
    page.click("button.run")
    page.wait_for_selector("#panel-answer:not([aria-busy])", state="attached")
    assert page.is_hidden("[role=alert]"), page.inner_text("[role=alert]")
    assert page.locator(f"#panel-answer {SHOWN[model, verb]}").count() > 0
    page.click("#tab-code")
    assert f'bw.Client("{page.url.partition("/#")[0]}", "{model}")' in page.inner_text("#panel-code")


def test_the_page_shows_what_the_predictor_says(opened: Any) -> None:
    page = opened("/#model=classify&verb=classify&texts=the+red+dog+runs")
    right = served_predictor("classify").classify("the red dog runs")
    assert page.inner_text("#panel-answer .verdict") == right.label
    assert f"{right.probability:.3f}" in page.inner_text("#panel-answer .bars li >> nth=0")
    page.click("#tab-inside")
    page.wait_for_selector("#panel-inside #tokens .chip")
    assert page.locator("#panel-inside .chip").count() == 6  # four words, [CLS] and [SEP]
    page = opened("/#model=similar&verb=embed&texts=the+dog")  # a model whose head decides nothing
    page.click("#tab-inside")
    page.wait_for_selector("#panel-inside #attention #matrix")
    page = opened("/#model=causal&verb=generate&prompt=the+dog&max_tokens=5")
    page.locator("#panel-answer .piece").first.click()
    assert page.locator("#panel-answer .bars li").count() == 6
    page = opened("/#model=pretrained&verb=fill&text=nothing")
    assert "no [MASK] in 'nothing'" in page.inner_text("[role=alert]")
    assert "status of 422" in opened.said.pop()  # which the browser says by itself


def test_on_a_telephone_in_the_dark_nothing_is_wider_than_the_screen(opened: Any) -> None:
    for path in ("/#model=similar&verb=similar", "/docs"):
        page = opened(path, size={"width": 360, "height": 740}, scheme="dark")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert "POST /v1/classify" in page.inner_text("main")
    assert page.locator("details").count() > 20
