"""`bothways explain`: a page, a picture, a run's checkpoints, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bothways as bw
from bothways.data.prepare import prepare
from bothways.pages.arrays import decompress_array
from tests.data.test_prepare import write_corpus
from tests.helpers import Run, tiny_tokenizer


def data_of(page: Path) -> dict[str, Any]:
    (content,) = re.findall(r'<script type="application/json" id=data>(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(content)  # type: ignore[no-any-return]


def test_a_page_and_a_picture_from_the_command_line(minilm: Path, tmp_path: Path, bothways: Run) -> None:
    page = tmp_path / "page.html"
    arguments = ("Please buy an apple", "--others", "Apple unveiled a phone", "--word", "apple", "--anchors", "fruit")
    code, output, errors = bothways("explain", minilm, *arguments, "--out", page)
    assert code == 0, errors
    assert "opens in any browser" in output
    assert len(data_of(page)["embeddings"]["paths"]) == 2
    code, _, errors = bothways("explain", minilm, "a cat", "--pair", "a dog", "--out", tmp_path / "a.svg", "--layer", 1)
    assert code == 0, errors
    assert "layer 1, head 12" in (tmp_path / "a.svg").read_text()


def test_a_runs_checkpoints_are_compared_on_the_same_text(tmp_path: Path, bothways: Run) -> None:
    write_corpus(tmp_path / "c.jsonl", documents=60)
    store = prepare([str(tmp_path / "c.jsonl")], tiny_tokenizer(), tmp_path / "store")
    options = bw.PretrainOptions(
        size="tiny", steps=6, tokens_per_step=400, checkpoint_every=2, keep_checkpoints=3, lr=1e-2, evaluate_every=0
    )
    bw.pretrain(store.directory, tmp_path / "run", options)
    page = tmp_path / "page.html"
    code, _, errors = bothways("explain", tmp_path / "run", "the old [MASK] eats", "--out", page)
    assert code == 0, errors
    data = data_of(page)
    assert [checkpoint["name"] for checkpoint in data["checkpoints"]] == ["step 2", "step 4", "step 6"]
    last, own = data["checkpoints"][-1], data["runs"][0]
    np.testing.assert_allclose(decompress_array(last["weights"][1]), decompress_array(own["weights"][1]), atol=1e-3)
    (tmp_path / "run" / "checkpoints" / "step-00000004" / "model.safetensors").write_bytes(b"cut short")
    code, _, errors = bothways("explain", tmp_path / "run", "the old [MASK] eats", "--out", page)
    assert code == 0, errors
    assert [checkpoint["name"] for checkpoint in data_of(page)["checkpoints"]] == ["step 2", "step 6"]
    assert "step-00000004 is left out" in " ".join(data_of(page)["notes"])
    first = decompress_array(data["checkpoints"][0]["weights"][1])
    assert np.abs(first - decompress_array(own["weights"][1])).max() > 1e-3
    assert last["fills"][0]["alternatives"][0][1] == pytest.approx(
        bw.load(tmp_path / "run").fill("the old [MASK] eats")[0][0].probability, abs=1e-4
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a cat", "--out", "page.pdf"), ".html"),
        (("a cat", "--anchors", "fruit"), "--anchors: needs --word"),
        (("a cat", "--word", "dog"), "--word dog: in none of the sentences"),
        (("",), "the text is empty"),
        (("a cat", "--layer", 2), "--layer 2: is for pictures"),
        (("a cat", "--out", "a.png", "--layer", 7), "--layer 7: the model has layers 1 to 6"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    arguments: tuple[object, ...],
    message: str,
    minilm: Path,
    tmp_path: Path,
    bothways: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, errors = bothways("explain", minilm, *arguments)
    assert code == 2
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert not list(tmp_path.glob("*.html"))


def test_umap_places_points_or_says_what_to_install(minilm: Path) -> None:
    model = bw.load(minilm)
    if importlib.util.find_spec("umap") is None:
        with pytest.raises(bw.UserError, match=r"projection='umap' needs umap-learn .*: pip install umap-learn"):
            model.explain("the dog eats the cat", projection="umap")
    else:
        points = model.explain("the dog eats the cat", projection="umap").data["embeddings"]["points"]
        assert np.isfinite(decompress_array(points[0])).all()


def test_a_notebook_gets_a_frame_of_its_own(minilm: Path) -> None:
    shown = bw.load(minilm).explain("a <b>cat</b>")._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert "<b>" not in shown
