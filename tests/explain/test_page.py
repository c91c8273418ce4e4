"""The page in a real browser, Debian's Chromium: it opens without errors or requests, and its controls do what they
say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bothways as bw
from bothways.checkpoint.hugging_face import Checkpoint, new_model
from bothways.model.families import FAMILIES, head_builder
from bothways.pages.arrays import decompress_array
from bothways.predictor import Predictor
from tests.helpers import tiny_config, tiny_tokenizer

TEXT = ("<script>document.title = 'taken'</script> The bear ate the honey", "It was <b>hungry</b>")


@pytest.fixture(scope="module")
def explained(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    others = ("Please buy an apple and an orange", "Apple unveiled the new phone")
    explanation = bw.load(minilm).explain(TEXT, others=others, word="apple", anchors=("fruit", "company"))
    return explanation.write(tmp_path_factory.mktemp("page") / "page.html"), explanation.data


class Watched:
    """A page and everything that it complained of or asked the network for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on(
            "request", lambda request: None if request.url.startswith("file:") else self.said.append(request.url)
        )
        self.page.goto(path.as_uri())
        self.page.wait_for_function("window.bothways && window.bothways.ready")
        self.page.evaluate("() => window.bothways.ready")


@pytest.fixture
def open_page(browser: Any, explained: tuple[Path, dict[str, Any]]) -> Iterator[Any]:
    opened: list[Watched] = []

    def make(**options: Any) -> Watched:
        opened.append(Watched(browser, explained[0], **options))
        return opened[-1]

    yield make
    for watched in opened:
        watched.context.close()
        assert watched.said == []


def cells(page: Any, matrix: str = "#matrix") -> np.ndarray:
    """The numbers of the large matrix as the page shows them."""
    found = page.eval_on_selector_all(
        f"{matrix} rect[data-row]", "rects => rects.map(({ dataset }) => [dataset.row, dataset.column, dataset.value])"
    )
    size = 1 + max(int(row) for row, _, _ in found)
    values = np.zeros((size, size))
    for row, column, value in found:
        values[int(row), int(column)] = float(value or 0)  # a masked cell has none
    return values


def choose(page: Any, **values: str) -> None:
    for name, value in values.items():
        page.select_option(f"#attention-{name}", value)
    layer, head = page.input_value("#attention-layer"), page.input_value("#attention-head")
    page.wait_for_selector(f'#matrix[data-layer="{layer}"][data-head="{head}"] rect[data-row]', state="attached")


def test_a_text_stays_text_and_every_view_is_there(open_page: Any, explained: tuple[Path, dict[str, Any]]) -> None:
    page = open_page().page
    assert page.title() != "taken"
    assert page.locator("#tokens").inner_text().count("script") >= 2
    assert page.locator("main b").count() == 0
    for section in ("tokens", "attention", "steps", "embeddings", "positions"):
        assert page.locator(f"section#{section}").count() == 1, section


def test_layers_heads_and_readings_show_the_models_numbers(
    open_page: Any, explained: tuple[Path, dict[str, Any]]
) -> None:
    page, readings = open_page().page, explained[1]["runs"]
    choose(page, reading="0", layer="3", head="5")
    np.testing.assert_allclose(cells(page), decompress_array(readings[0]["weights"][3])[5], atol=1e-3)
    choose(page, reading="1")
    page.wait_for_selector('#matrix[data-reading="1"] rect.masked', state="attached")
    shown = decompress_array(readings[1]["weights"][3])[5]
    np.testing.assert_allclose(np.tril(cells(page)), np.tril(shown), atol=1e-3)
    masked = page.locator("#matrix rect.masked").count()
    assert masked == len(shown) * (len(shown) - 1) / 2, "the upper triangle is empty"
    page.select_option("#attention-reading", "0")
    page.check("#attention-beside")
    page.wait_for_selector("#matrix-beside rect.masked", state="attached")


def test_looking_at_a_token_by_mouse_and_by_keyboard(open_page: Any, explained: tuple[Path, dict[str, Any]]) -> None:
    page = open_page().page
    choose(page, reading="0", layer="0", head="0")
    token = page.locator('.token[data-side="from"][data-token="3"]').first
    token.hover()
    page.wait_for_function("document.querySelector('#strongest').textContent.includes('sums to 1.000')")
    before = page.locator("#strongest").inner_text()
    token.focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_function("before => document.querySelector('#strongest').innerText !== before", arg=before)
    assert "sums to 1.000" in page.locator("#strongest").inner_text()


def test_pieces_merge_to_words(open_page: Any, explained: tuple[Path, dict[str, Any]]) -> None:
    page, data = open_page().page, explained[1]
    choose(page, reading="0", layer="2", head="1")
    page.check("#attention-words")
    groups: list[list[int]] = []
    for position, token in enumerate(data["tokens"]):
        if groups and token["word"] >= 0 and data["tokens"][groups[-1][-1]]["word"] == token["word"]:
            groups[-1].append(position)
        else:
            groups.append([position])
    weights = decompress_array(data["runs"][0]["weights"][2])[1]
    expected = np.array([[weights[np.ix_(a, b)].sum(1).mean() for b in groups] for a in groups])
    page.wait_for_function(f"document.querySelectorAll('#matrix rect[data-row]').length === {expected.size}")
    np.testing.assert_allclose(cells(page), expected, atol=1e-3)


def test_the_steps_follow_what_is_chosen_and_may_leave_it(open_page: Any) -> None:
    page = open_page().page

    def softmax() -> list[str]:
        return page.locator("#steps .stepped").first.locator("td:nth-child(5)").all_inner_texts()

    page.locator('.thumbnail[data-layer="2"][data-head="4"]').click()
    page.locator(".chip").nth(5).click()
    fields = ("reading", "layer", "head", "token")
    assert [page.input_value(f"#steps-{field}") for field in fields] == ["0", "2", "4", "5"]
    page.wait_for_selector('#matrix[data-layer="2"][data-head="4"]', state="attached")
    np.testing.assert_allclose([float(share) for share in softmax()], cells(page)[5], atol=2e-3)
    before = softmax()
    page.select_option("#steps-layer", "1")
    page.wait_for_function(
        "before => document.querySelector('#steps .stepped td:nth-child(5)').innerText !== before", arg=before[0]
    )
    assert page.input_value("#attention-layer") == "2", "the section of attention stays"
    assert sum(map(float, softmax())) == pytest.approx(1, abs=1e-2)


def test_what_is_chosen_stays_when_light_becomes_dark(open_page: Any) -> None:
    page = open_page(color_scheme="light").page
    choose(page, layer="4", head="2")
    page.locator(".chip").nth(3).click()
    page.check("#attention-words")
    light = page.eval_on_selector("#matrix rect[data-row]", "rect => rect.getAttribute('fill')")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "light => document.querySelector('#matrix rect[data-row]')?.getAttribute('fill') !== light", arg=light
    )
    page.wait_for_selector('#matrix[data-layer="4"][data-head="2"] rect[data-row]', state="attached")
    assert page.input_value("#attention-layer") == "4"
    assert page.is_checked("#attention-words")
    assert page.locator(".chip").nth(3).get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 1280])
def test_narrow_and_wide_light_and_dark(open_page: Any, scheme: str, width: int) -> None:
    page = open_page(viewport={"width": width, "height": 900}, color_scheme=scheme).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing hangs over the side"
    colours = page.evaluate("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    light = [sum(int(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]) for colour in colours]
    assert (light[0] < light[1]) == (scheme == "light")


def test_predictions_come_first_and_the_text_once(open_page: Any, explained: tuple[Path, dict[str, Any]]) -> None:
    page = open_page().page
    title = page.locator("h1").inner_text()
    assert title.endswith(": a model that turns a text into a vector")
    text = page.locator("header").inner_text()
    assert text.count("The bear ate the honey") == 1


def test_what_spoke_for_a_decision_is_told_in_words(browser: Any, tmp_path: Path) -> None:
    """The pieces of a word count together, as their contributions add up to the same difference."""
    model = new_model(tiny_config(initializer_range=0.2), head_builder("sequence", 2), seed=1).eval()
    explanation = Predictor(Checkpoint(model, tiny_tokenizer(), {"labels": ["yes", "no"]})).explain("the olddog")
    data = explanation.data
    pieces = [token["token"] for token in data["tokens"]]
    assert len(pieces) > len(data["words"]) + 2, "a word of several pieces"
    watched = Watched(browser, explanation.write(tmp_path / "page.html"))
    page = watched.page
    sections = page.eval_on_selector_all("section", "sections => sections.map(({ id }) => id)")
    assert sections[:2] == ["predictions", "tokens"]
    shown = page.eval_on_selector_all(".attribution span", "spans => spans.map((s) => [s.innerText, Number(s.title)])")
    assert [word for word, _ in shown] == ["[CLS]", "the", "olddog", "[SEP]"]
    scores = data["predictions"]["attribution"]["scores"]
    assert shown[2][1] == pytest.approx(sum(scores[2:-1]), abs=1e-4)
    assert "--others" in page.locator("#embeddings").inner_text(), "one sentence has no other to be compared with"
    assert "classifies a text" in page.locator("h1").inner_text()
    watched.context.close()
    assert watched.said == []


def test_a_text_of_a_screen_has_no_inner_fold(browser: Any, tmp_path: Path) -> None:
    model = new_model(tiny_config(), head_builder("pretraining"), seed=1).eval()
    explanation = Predictor(Checkpoint(model, tiny_tokenizer())).explain("the old dog eats . " * 6 + "[MASK]")
    watched = Watched(browser, explanation.write(tmp_path / "page.html"), viewport={"width": 1280, "height": 900})
    folded = watched.page.eval_on_selector_all(
        ".lines, .chips, .thumbnails, #steps .scroll, #embeddings .scroll, blockquote",
        "boxes => boxes.filter((box) => box.scrollHeight > box.clientHeight + 1).map((box) => box.className)",
    )
    assert folded == []
    watched.context.close()


PREDICTED = {
    "fills": (head_builder("pretraining"), {}, "the old [MASK] eats"),
    "next": (head_builder("causal-LM"), {"is_decoder": True}, "the old dog"),
    "classes": (head_builder("sequence", 2), {}, "the old dog"),
    "score": (head_builder("sequence", 1), {}, "the old dog"),
    "tags": (head_builder("token", 2), {}, "the zebra eats"),
    "span": (head_builder("span"), {}, ("the dog?", "the old dog eats in the house")),
}


@pytest.mark.parametrize("name", PREDICTED)
def test_every_heads_predictions_are_drawn(name: str, browser: Any, tmp_path: Path) -> None:
    head, config, text = PREDICTED[name]
    model = new_model(tiny_config(initializer_range=0.2, **config), head, seed=1).eval()
    labels = {"classes": ["yes", "no"], "tags": ["B-DEVICE", "O"], "score": ["score"]}.get(name, [])
    explanation = Predictor(Checkpoint(model, tiny_tokenizer(), {"labels": labels})).explain(text)
    watched = Watched(browser, explanation.write(tmp_path / "page.html"))
    shown = watched.page.locator("section#predictions").inner_text()
    assert "could not be drawn" not in watched.page.locator("main").inner_text()
    view = explanation.data["predictions"]
    expected = {
        "fills": lambda: [token for token, _ in view["fills"][0]["alternatives"][:3]],
        "next": lambda: [view["next"][0][0], view["samples"][0]],
        "classes": lambda: ["yes", "no"],
        "score": lambda: [f"{view['score']:.3f}"],
        "tags": lambda: ["zebra", view["tags"][0]["labels"][0][0]],
        "span": lambda: [view["span"]["answer"]],
    }[name]()
    assert all(text in shown for text in expected)
    watched.context.close()
    assert watched.said == []


def test_a_model_without_a_table_of_positions_has_every_other_section(browser: Any, tmp_path: Path) -> None:
    config = FAMILIES["modernbert"].config.from_size("tiny", vocab_size=tiny_tokenizer().vocab_size)
    model = new_model(config, head_builder("masked-LM"), seed=1).eval()
    explanation = Predictor(Checkpoint(model, tiny_tokenizer())).explain("the old [MASK] eats")
    watched = Watched(browser, explanation.write(tmp_path / "page.html"))
    sections = watched.page.eval_on_selector_all("section", "sections => sections.map(({ id }) => id)")
    assert sections == ["predictions", "tokens", "attention", "steps", "embeddings"]
    watched.context.close()
    assert watched.said == []


def test_a_text_of_masks_alone_has_every_section(browser: Any, tmp_path: Path) -> None:
    model = new_model(tiny_config(), head_builder("pretraining"), seed=1).eval()
    watched = Watched(
        browser, Predictor(Checkpoint(model, tiny_tokenizer())).explain("[MASK]").write(tmp_path / "page.html")
    )
    assert "could not be drawn" not in watched.page.locator("main").inner_text()
    watched.context.close()
