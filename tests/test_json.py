"""What is written as JSON is JSON: no NaN, no Infinity, which RFC 8259 does not know."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bothways.files import read_json, to_json, write_json
from bothways.train.loop import _RunningMeans
from bothways.train.run import RunDirectory


def strict(text: str) -> Any:
    """Read JSON as others do. Raises ValueError for what Python alone takes."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_what_is_no_number_is_null_wherever_it_stands(number: float, tmp_path: Path) -> None:
    value = {"a": number, "b": [1.5, (number, {"c": number})], "d": "NaN", "e": None, "f": True}
    expected = {"a": None, "b": [1.5, [None, {"c": None}]], "d": "NaN", "e": None, "f": True}
    assert strict(to_json(value)) == expected
    write_json(tmp_path / "v.json", value)
    assert strict((tmp_path / "v.json").read_text(encoding="utf-8")) == expected == read_json(tmp_path / "v.json")


def test_what_is_finite_is_written_as_it_was() -> None:
    value = {"a": [1.5, 1e300, -0.0, 3], "é": "x"}
    assert to_json(value) == json.dumps(value)
    assert to_json(value, ensure_ascii=False, indent=2) == json.dumps(value, ensure_ascii=False, indent=2)
    with pytest.raises(TypeError):
        to_json({"a": object()})


def test_metrics_of_a_loss_that_was_no_number_are_read_without_it(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    run = RunDirectory(tmp_path / "run")
    run.log({"step": 1, "loss": math.nan, "lr": 0.1})
    run.log({"step": 2, "loss": 0.5, "lr": math.inf})
    before = run.metrics_path.read_text(encoding="utf-8")
    assert [strict(line) for line in before.splitlines()] == [
        {"step": 1, "loss": None, "lr": 0.1},
        {"step": 2, "loss": 0.5, "lr": None},
    ]
    assert run.metrics() == [{"step": 1, "lr": 0.1}, {"step": 2, "loss": 0.5}]
    run.rewind_metrics(2)
    assert run.metrics_path.read_text(encoding="utf-8") == before


def test_a_window_with_a_sum_that_was_no_number_goes_on_as_no_number() -> None:
    kept = strict(to_json({"sums": {"loss": math.nan, "lr": 1.0}, "counts": {"loss": 2, "lr": 2}}))
    means = _RunningMeans.from_json(kept).means()
    assert math.isnan(means["loss"])
    assert means["lr"] == 0.5
