"""`bothways bench`: a table of what the machine does, at the precisions that make sense on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bothways.errors import UserError
from bothways.predictor import Predictor
from bothways.verbs import bench
from tests.helpers import Run


@pytest.fixture
def few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tenth of the texts, which are embedded six times."""
    texts = bench.mixed_texts()[::10]
    monkeypatch.setattr(bench, "mixed_texts", lambda: texts)


@pytest.mark.usefixtures("few_texts")
def test_figures_and_table(pretrained: Path, bothways: Run) -> None:
    code, out, err = bothways("bench", pretrained, "--seconds", 0.1, "--json")
    assert code == 0, err
    found = json.loads(out)
    speeds = {one["precision"]: one for one in found["precisions"]}
    assert list(speeds) == bench.offered_precisions(torch.device("cpu"))
    assert speeds["float32"]["cosine"] == pytest.approx(1, abs=1e-5)
    assert speeds["int8"]["cosine"] > 0.9
    assert all(one["tokens_per_second"] > 0 for one in speeds.values())
    for one in speeds.values():
        assert set(one["latency"]) == {"16", "128"}
        assert all(0 < median <= slow for median, slow in one["latency"].values())
    code, out, _ = bothways("bench", pretrained, "--seconds", 0.1)
    assert code == 0
    assert "float32, compiled layers" in out
    assert "Tokenising alone" in out


def test_seconds_that_are_none(pretrained: Path, bothways: Run) -> None:
    for seconds in (0, -3, "inf"):
        code, _, err = bothways("bench", pretrained, "--seconds", seconds)
        assert code == 2
        assert "expected a number above 0" in err


def test_texts_are_of_all_lengths() -> None:
    lengths = [len(text) for text in bench.mixed_texts()]
    assert len(lengths) == 600
    assert min(lengths) < 60
    assert max(lengths) > 400


@pytest.mark.usefixtures("few_texts")
def test_a_precision_that_nobody_asked_for_is_left_out_in_plain_words(
    pretrained: Path, bothways: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = bench._measured

    def refusing(model: Predictor, *rest: Any) -> bench.InferenceSpeed:
        if model.precision == "int8":
            raise UserError("--precision int8: slower than bfloat16; use that")
        return measured(model, *rest)

    monkeypatch.setattr(bench, "_measured", refusing)
    code, out, err = bothways("bench", pretrained, "--seconds", 0.01)
    assert code == 0
    assert "bench: int8 is left out: slower than bfloat16; use that\n" in err
    assert "--precision" not in err + out
