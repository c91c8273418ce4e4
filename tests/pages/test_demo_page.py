"""The demo's page says where the model is unsure, and which answers are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from bothways.demo import ask
from bothways.pages.demo import report_pretraining, right_or_wrong
from bothways.pages.report import HtmlReport
from bothways.predictor import load


def test_what_the_model_is_unsure_of_is_said(
    pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that was never trained is sure of nothing."""
    fills, pairs = ask(load(pretrained), Console(soft_wrap=True, highlight=False))
    said = capsys.readouterr().out
    assert said.count("(unsure: more likely wrong than right)") == len(fills)
    assert [pair[-1] for pair in pairs] == [
        right_or_wrong((pair[3] >= 0.5) == follows) for pair, follows in zip(pairs, (1, 1, 0, 0), strict=True)
    ]
    model = tmp_path / "pretrained" / "model"
    model.mkdir(parents=True)
    (model / "bothways.json").write_text(json.dumps({"provenance": {"options": {}}}))
    report = HtmlReport("demo")
    report_pretraining(report, tmp_path, fills, pairs)
    report.write(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"Of {len(fills)} of these {len(fills)} masks the model is unsure" in page
    assert page.count(">wrong<") == sum(pair[-1] == "wrong" for pair in pairs)
