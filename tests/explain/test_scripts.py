"""The page's JavaScript, without a page: its form, its geometry, its numbers, and the store."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bothways
from bothways.pages.arrays import compress_array
from bothways.pages.explanation import EXPORT_KEYWORD, IMPORT_STATEMENT, PAGE_MODULES, join_modules

STATIC = Path(bothways.__file__).parent / "pages" / "static"
SOURCES = {name: (STATIC / name).read_text(encoding="utf-8") for name in PAGE_MODULES}
EXPORTS = {name: set(EXPORT_KEYWORD.findall(source)) for name, source in SOURCES.items()}
NO_CODE = re.compile(r"/\*.*?\*/|(?<![:'])//[^\n]*|'(?:[^'\\\n]|\\.)*'", re.DOTALL)  # comments and strings


def imports(name: str) -> Iterator[tuple[str, str]]:
    """Each name that a file imports, and from which file."""
    for names, source in IMPORT_STATEMENT.findall(SOURCES[name]):
        for imported in re.findall(r"\w+", names):
            yield imported, source


def test_every_file_is_a_module_of_the_page_and_keeps_to_the_form() -> None:
    assert sorted(PAGE_MODULES) == sorted(path.name for path in STATIC.glob("*.js"))
    for path in STATIC.iterdir():
        lines = path.read_text(encoding="utf-8").splitlines()
        assert [number for number, line in enumerate(lines, 1) if len(line) > 120] == [], path.name
        assert path.suffix == ".css" or lines[0].startswith("// "), f"{path.name}: its header says what it holds"
        assert len(lines) <= 250, path.name


@pytest.mark.parametrize("name", PAGE_MODULES)
def test_a_file_sees_of_others_what_it_imports(name: str) -> None:
    before = PAGE_MODULES[: PAGE_MODULES.index(name)]
    body = NO_CODE.sub("", IMPORT_STATEMENT.sub("", SOURCES[name]))
    assert "import " not in body, "imports are `import { … } from './FILE';`"
    for imported, source in imports(name):
        assert source in before, f"{source} must stand before {name} in PAGE_MODULES"
        assert imported in EXPORTS[source], f"{source} does not export {imported}"
        assert re.search(rf"\b{imported}\b", body), f"{name} does not use {imported}"
    known = EXPORTS[name] | {imported for imported, _ in imports(name)}
    for foreign in set().union(*EXPORTS.values()) - known:
        assert not re.search(rf"(?<![.\w]){foreign}\b(?!\s*:)", body), f"{foreign} is not imported"


def test_every_export_is_used() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    imported = {pair for name in PAGE_MODULES for pair in imports(name)}
    unused = [
        (name, exported)
        for name, exports in EXPORTS.items()
        for exported in exports
        if (exported, name) not in imported and exported not in tests
    ]
    assert unused == []


def test_the_pages_script_is_javascript(run_script: Callable[[str], Any]) -> None:
    assert run_script(f"new Function({join_modules(PAGE_MODULES)!r}) instanceof Function")


def test_a_matrix_has_its_cells_where_the_pointer_finds_them(evaluate: Callable[..., Any]) -> None:
    found = evaluate(
        """({ geometry: { cellAt, cellRects, matrixLayout } }) => [3, 40, 41, 700].map((n) => {
          const layout = matrixLayout(n);
          const box = { width: layout.size / 2, height: layout.size / 2 }; // shown at half its size
          const grid = { rows: n, columns: n, margin: layout.margin, width: layout.size };
          const rects = cellRects(n, layout);
          const middle = ({ x, y }) => ({ x: (x + layout.cell / 2) / 2, y: (y + layout.cell / 2) / 2 });
          const wrong = rects.filter((rect) => {
            const cell = cellAt(middle(rect), box, grid);
            return cell?.row !== rect.row || cell.column !== rect.column;
          });
          return { layout, wrong: wrong.length, count: rects.length, last: rects.at(-1),
            inNames: cellAt({ x: layout.margin / 4, y: box.height - 1 }, box, grid),
            beyond: cellAt({ x: box.width + 1, y: box.height - 1 }, box, grid) };
        })"""
    )
    for n, matrix in zip((3, 40, 41, 700), found, strict=True):
        layout, last = matrix["layout"], matrix["last"]
        assert matrix["count"] == n * n
        assert matrix["wrong"] == 0
        assert last["x"] + layout["cell"] == last["y"] + layout["cell"] == layout["size"]
        assert layout["named"] == (n <= 40) == (layout["margin"] > 0)
        assert (matrix["inNames"] is None) == layout["named"]
        assert matrix["beyond"] is None
    assert [matrix["layout"]["cell"] for matrix in found] == [30, 14, 13, 1]


LINES = """({ geometry: { linesBetween, linesOfRow } }, values, row) => {
  const isVisible = (from, to) => to <= from;
  const matrix = { values, n: 3, isVisible, largest: 0.8 };
  return { all: linesBetween(matrix), of: linesOfRow(matrix, row) };
}"""


def test_lines_join_who_looks_to_whom_the_strongest_first(evaluate: Callable[..., Any]) -> None:
    values = [0.4, 0.9, 0.0, 0.01, 0.8, 0.0, 0.2, 0.1, 0.4]
    found = evaluate(LINES, values, 1)
    ends = [(line["x1"], line["y1"], line["x2"], line["y2"]) for line in found["all"]]
    middle = [11, 33, 55]
    pairs = [(1, 1), (0, 0), (2, 2), (2, 0), (2, 1)]  # 0.01 is too faint, the mask hides 0.9
    assert ends == [(0, middle[from_], 100, middle[to]) for from_, to in pairs]
    assert [line["share"] for line in found["all"]] == pytest.approx([1, 0.5, 0.5, 0.25, 0.125])
    of_row = found["of"]
    assert of_row["given"] == pytest.approx([0.0125, 1, 0])
    assert of_row["received"] == pytest.approx([0, 1, 0.125])
    shown = [(line["direction"], line["y1"], line["y2"]) for line in of_row["lines"]]
    assert shown == [("given", 33, 11), ("received", 33, 33), ("given", 33, 33), ("received", 55, 33)]


def test_a_pixel_shows_the_largest_of_its_cells(evaluate: Callable[..., Any]) -> None:
    values = np.zeros((6, 6))
    values[1, 4], values[4, 0], values[5, 5] = -3, 0.5, 9
    function = """({ geometry: { pixelValues } }, values, most) => {
      const { width, height, pixels } = pixelValues(values, 6, 6, (row, column) => row + column < 10, most);
      return { width, height, pixels: [...pixels] };
    }"""
    small = evaluate(function, values.ravel().tolist(), 3)
    assert (small["width"], small["height"]) == (3, 3)
    assert small["pixels"] == [0, 0, -3, 0, 0, 0, 0.5, 0, 0]
    full = evaluate(function, values.ravel().tolist(), 64)
    assert full["pixels"] == [*values.ravel().tolist()[:-1], None], "the last cell is not visible"


def test_labels_cover_no_point_and_no_label(evaluate: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    points = [{"x": x, "y": y, "label": "word"} for x, y in rng.uniform((20, 20), (380, 280), (60, 2)).tolist()]
    spots = evaluate("({ geometry }, points) => geometry.placeLabels(points, 400, 300)", points)
    length = 4 * 6.5 + 2
    placed = [spot for spot in spots if spot]
    assert 20 < len(placed) < 60
    for index, (left, base) in enumerate(placed):
        assert 0 <= left <= 400 - length
        assert 10 <= base <= 300
        for other_left, other_base in placed[:index]:
            assert abs(other_left - left) >= length or abs(other_base - base) >= 12
        for point in points:
            assert not (left - 5 < point["x"] < left + length + 5 and abs(point["y"] + 5 - base) < 12)


def test_plots_fill_their_box(evaluate: Callable[..., Any]) -> None:
    function = """({ geometry: { boundingBox, chartAxes, projection } }, points) => {
      const box = boundingBox(points);
      const { x, y, left, right, bottom } = chartAxes(7, [-1, 1], { width: 340, height: 190 });
      return { box, pixels: points.map(projection(box, 400, 240)), alone: projection(boundingBox([]), 400, 240)([0, 0]),
        chart: [x(0) - left, x(6) - right, y(-1) - bottom, y(1)] };
    }"""
    found = evaluate(function, [[0, 5], [2, 1], [1, 3]])
    assert found["box"] == {"low": [0, 1], "high": [2, 5]}
    assert found["pixels"] == [[14, 14], [386, 226], [200, 120]]
    assert found["alone"] == [14, 226]
    assert found["chart"] == [0, 0, 0, 12]


def test_bars_of_an_answer_stand_on_one_ground(evaluate: Callable[..., Any]) -> None:
    found = evaluate("({ geometry }) => geometry.spanBars([0.25, 0.5], [0, 0.1])")
    assert found["largest"] == 0.5
    assert {bar["y"] + bar["height"] for bar in found["bars"]} == {90}
    assert [bar["height"] for bar in found["bars"]] == pytest.approx([42, 84, 0, 16.8])
    assert [(bar["kind"], bar["index"], bar["x"]) for bar in found["bars"]] == [
        ("start", 0, 1), ("start", 1, 19), ("end", 0, 9), ("end", 1, 27),
    ]  # fmt: skip


def test_words_get_what_their_pieces_get(evaluate: Callable[..., Any]) -> None:
    """Weights are summed and averaged; scores are averaged over the cells that the mask leaves."""
    words, segments = (-1, 0, 0, 1, 1, -1), (0, 0, 0, 1, 1, 1)
    tokens = [{"word": word, "segment": segment} for word, segment in zip(words, segments, strict=True)]
    values = np.random.default_rng(0).random((6, 6))
    function = """({ matrices: { groupTokens, mergeMatrix } }, tokens, values) => {
      const groups = groupTokens(tokens, true);
      const merged = (isScores, isMasked) => [...mergeMatrix(values, groups, tokens.length, isScores, isMasked)];
      return { groups, alone: groupTokens(tokens, false), weights: merged(false, () => false),
        scores: merged(true, (row, column) => column > row) };
    }"""
    found = evaluate(function, tokens, values.ravel().tolist())
    groups = [[0], [1, 2], [3, 4], [5]]
    assert found["groups"] == groups
    assert found["alone"] == [[index] for index in range(6)]
    expected = [[values[np.ix_(a, b)].sum(1).mean() for b in groups] for a in groups]
    np.testing.assert_allclose(np.reshape(found["weights"], (4, 4)), expected, rtol=1e-6)
    visible = np.tril(np.ones((6, 6)))
    means = [
        [(values * visible)[np.ix_(a, b)].sum() / max(1, visible[np.ix_(a, b)].sum()) for b in groups] for a in groups
    ]
    np.testing.assert_allclose(np.reshape(found["scores"], (4, 4)), means, rtol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_the_steps_are_attention(causal: bool, evaluate: Callable[..., Any]) -> None:
    queries, keys, values = np.random.default_rng(0).normal(size=(3, 2, 5, 4)).astype(np.float32)
    function = """({ matrices: { attentionSteps } }, arrays, sizes) => {
      const [queries, keys, values] = arrays.map((numbers) => Float32Array.from(numbers));
      const { query, ...steps } = attentionSteps({ queries, keys, values }, sizes);
      return { ...steps, query: [...query] };
    }"""
    sizes = {"T": 5, "D": 4, "head": 1, "token": 2, "causal": causal}
    found = evaluate(function, [array.ravel().tolist() for array in (queries, keys, values)], sizes)
    scores = keys[1] @ queries[1, 2] / 2
    np.testing.assert_allclose(found["scaled"], scores, rtol=1e-5)
    np.testing.assert_allclose(found["products"], 2 * scores, rtol=1e-5)
    assert [score is None for score in found["masked"]] == [causal and index > 2 for index in range(5)]
    powers = np.exp(scores) * (np.arange(5) <= 2 if causal else 1)
    np.testing.assert_allclose(found["weights"], powers / powers.sum(), rtol=1e-5)
    np.testing.assert_allclose(found["mixed"], powers @ values[1] / powers.sum(), rtol=1e-5)
    np.testing.assert_allclose(found["query"], queries[1, 2])


def test_heads_are_cut_out_and_averaged(evaluate: Callable[..., Any]) -> None:
    heads = np.random.default_rng(0).random((3, 2, 2)).astype(np.float32)
    function = """({ matrices: { matrixOfHead, meanOfHeads } }, numbers) => {
      const heads = Float32Array.from(numbers);
      return [[...matrixOfHead(heads, 1, 2)], [...meanOfHeads(heads, 2)]];
    }"""
    head, mean = evaluate(function, heads.ravel().tolist())
    np.testing.assert_allclose(np.reshape(head, (2, 2)), heads[1])
    np.testing.assert_allclose(np.reshape(mean, (2, 2)), heads.mean(0), rtol=1e-6)


def test_the_strongest_of_a_row_and_of_a_column(evaluate: Callable[..., Any]) -> None:
    function = """({ matrices: { largestVisible, strongestOf } }, values) => {
      const matrix = { values, n: 3, isVisible: (row, column) => column <= row };
      return [strongestOf(matrix, 1, true), strongestOf(matrix, 1, false), largestVisible(values, 3, matrix.isVisible)];
    }"""
    found = evaluate(function, [5, 0.1, 0.2, 0.3, 0.4, 9, 0.6, 0.7, -6])
    assert found == [[[1, 0.4], [0, 0.3]], [[2, 0.7], [1, 0.4]], 6]


def test_arrays_come_from_python_and_the_last_used_are_kept(evaluate: Callable[..., Any]) -> None:
    values = np.random.default_rng(0).normal(size=(3, 2, 5))
    arrays = [compress_array(matrix) for matrix in values]
    function = """async ({ arrays: { createDecompressor } }, compressed) => {
      const decompress = createDecompressor(20); // two of the three
      const first = compressed.map(decompress);
      const again = [compressed[1], compressed[0], compressed[2], compressed[0]].map(decompress);
      const kept = [again[0] === first[1], again[1] === first[0], again[2] === first[2], again[3] === again[1]];
      return { kept, numbers: (await Promise.all(first)).map((array) => [...array]) };
    }"""
    found = evaluate(function, arrays)
    np.testing.assert_allclose(np.reshape(found["numbers"], values.shape), values, atol=1e-4)
    # 2 took the room of 0; when 0 came back it took that of 2, which was used before 1, and then 2 that of 1
    assert found["kept"] == [True, False, False, True]


def test_colours_go_from_the_first_stop_to_the_last(evaluate: Callable[..., Any]) -> None:
    function = """({ colours: { colourOf, createScale, gradientOf, largestOf } }, values) => {
      const scale = (dark, kind) => createScale(dark, kind, largestOf(values));
      const ends = (dark, kind) => [-4, 0, 4, 8].map((value) => colourOf(scale(dark, kind), value));
      return [ends(false, 'sequential'), ends(true, 'signed'), gradientOf(scale(false, 'signed')), largestOf([0])];
    }"""
    sequential, signed, gradient, of_zeros = evaluate(function, [1, -4, 3])
    assert sequential == ["rgb(243 246 251)", "rgb(243 246 251)", "rgb(8 48 107)", "rgb(8 48 107)"]
    assert (signed[0], signed[2], signed[3]) == ("rgb(255 195 150)", "rgb(181 220 255)", "rgb(181 220 255)")
    assert gradient.startswith("linear-gradient(to right, #8c2d04, ")
    assert of_zeros == 1


def test_the_store_calls_those_who_asked_for_what_changed(evaluate: Callable[..., Any]) -> None:
    function = """({ store: { createStore } }) => {
      const store = createStore({ layer: 0, head: 0, token: 3 });
      const calls = [];
      store.subscribe(['layer', 'head'], () => calls.push(`place ${store.state.layer} ${store.state.head}`));
      store.subscribe(['token'], () => calls.push(`token ${store.state.token}`));
      store.set({ layer: 1, head: 2 });
      store.set({ layer: 1, token: 4 });
      store.set({ layer: 1, head: 2, token: 4 });
      const errors = [];
      for (const mistake of [() => store.set({ heads: 1 }), () => store.subscribe(['tokens'], () => {})]) {
        try { mistake(); } catch (error) { errors.push(error.message); }
      }
      return { calls, errors, state: store.state };
    }"""
    found = evaluate(function)
    assert found["calls"] == ["place 1 2", "token 4"]
    assert found["errors"] == ["no such field: heads", "no such field: tokens"]
    assert found["state"] == {"layer": 1, "head": 2, "token": 4}


def test_an_overtaken_load_is_not_shown(evaluate: Callable[..., Any]) -> None:
    function = """async ({ store: { latest } }) => {
      const waiting = [];
      const shown = [];
      const draw = latest(() => new Promise((resolve) => waiting.push(resolve)), (loaded) => shown.push(loaded));
      const draws = [draw(), draw(), draw()];
      waiting[2]('third');
      waiting[0]('first');
      waiting[1]('second');
      await Promise.all(draws);
      return shown;
    }"""
    assert evaluate(function) == ["third"]
