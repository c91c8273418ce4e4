"""int8 beside float32, before it is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import bothways as bw
from bothways.errors import PrecisionWarning, UserError
from bothways.inference import agreement, loaded
from bothways.precision import choose_inference_precision
from bothways.serve import process
from tests.helpers import Run


def test_the_real_model_in_int8_is_near_enough_and_says_how_near(minilm: Path) -> None:
    narrow, exact = (bw.load(minilm, "cpu", precision) for precision in ("int8", "float32"))
    assert narrow.agreement is None
    texts = agreement.packaged_texts()
    cosines = (narrow.embed(texts) * exact.embed(texts)).sum(1)
    assert narrow.agreement is not None
    assert narrow.agreement.cosine == pytest.approx(cosines.mean(), abs=1e-4)
    assert narrow.agreement.least == pytest.approx(cosines.min(), abs=1e-4)
    assert narrow.agreement.cosine > 0.994
    assert narrow.agreement.labels is None
    assert str(narrow.agreement).endswith(" with float32 on 32 texts")


def test_the_users_own_texts(minilm: Path, tmp_path: Path) -> None:
    lines, table = tmp_path / "lines.txt", tmp_path / "rows.jsonl"
    lines.write_text("A red door.\nThe cat sleeps.\n")
    table.write_text('{"text": "A red door."}\n{"text": "The cat sleeps."}\n')
    found = []
    for path in (lines, table):
        model = bw.load(minilm, "cpu", "int8", calibrate=path)
        assert model.calibration == ["A red door.", "The cat sleeps."]
        model.embed("warm")
        found.append(model.agreement)
    assert found[0] == found[1]
    assert found[0] is not None
    assert found[0].texts == 2
    with pytest.raises(UserError, match=r"calibrate='\S+lines.txt': only int8 is measured"):
        bw.load(minilm, "cpu", "float32", calibrate=lines)
    with pytest.raises(UserError, match="no such file"):
        bw.load(minilm, "cpu", "int8", calibrate=tmp_path / "none.txt")
    table.write_text('{"other": "A red door."}\n')
    with pytest.raises(UserError, match="'text'"):
        bw.load(minilm, "cpu", "int8", calibrate=table)


def test_the_command_line_says_how_near_the_texts_came(minilm: Path, tmp_path: Path, bothways: Run) -> None:
    (tmp_path / "lines.txt").write_text("A red door.\nThe cat sleeps.\n")
    asked = ("embed", minilm, "the old dog", "--precision", "int8", "--calibrate", tmp_path / "lines.txt")
    code, said, err = bothways(*asked)
    assert code == 0
    assert said.startswith('{"text": "the old dog"')
    assert "embed in int8: cosine 0.99" in err
    assert "with float32 on 2 texts" in err
    code, _, err = bothways("export", "onnx", minilm, "--out", tmp_path / "o", "--calibrate", tmp_path / "lines.txt")
    assert code == 2
    assert "is for export onnx --int8" in err


def test_verbs_that_rank_measure_too(minilm: Path, pretrained: Path, tmp_path: Path, bothways: Run) -> None:
    lines, run = tmp_path / "lines.txt", tmp_path / "pairs"
    lines.write_text("A red door.\nThe cat sleeps.\n")
    rows = [{"text": "a door", "pair": "the door", "label": label} for label in ("yes", "no")] * 2
    columns = {"pair_column": "pair", "problem_type": "single_label_classification"}
    bw.finetune("classify", pretrained, rows, None, run, steps=1, quiet=True, **columns)  # type: ignore[arg-type]
    calibrated = ("--precision", "int8", "--calibrate", lines)
    code, said, err = bothways("similar", minilm, "a door", "--in", lines, *calibrated)
    assert code == 0
    assert "A red door." in said.splitlines()[0]
    assert "similar in int8: cosine 0.99" in err
    assert "with float32 on 2 texts" in err
    tables = tmp_path / "pairs.jsonl"
    tables.write_text('{"text": "a door", "pair": "the door"}\n')
    code, _, err = bothways("rerank", run, "a door", "--in", lines, "--precision", "int8", "--calibrate", tables)
    assert code == 0
    assert "with float32 on 1 texts" in err
    code, _, err = bothways("similar", minilm, "a door", "--in", lines, "--precision", "float32", *calibrated[2:])
    assert code == 2
    assert "only int8 is measured" in err


def test_a_server_measures_each_model_once_as_it_loads_it(
    minilm: Path, pretrained: Path, tmp_path: Path, bothways: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lines.txt").write_text("A red door.\nThe cat sleeps.\n")
    measured: list[bw.Predictor] = []

    def run(options: process.ServerOptions, on_ready: Callable[..., None]) -> int:
        models = process.load_models(options)
        measured.extend(model.predictor for model in models.values())
        found = [model.agreement for model in measured]
        for model in measured:
            model.embed("the old dog")
        assert all(model.agreement is one for model, one in zip(measured, found, strict=True))
        on_ready(models, "http://127.0.0.1:1")
        return 0

    monkeypatch.setattr(process, "run_server", run)
    monkeypatch.setattr(process, "log_as_json", lambda quiet: None)
    named = ("--name", f"a={minilm}", f"b={pretrained}", "--device", "cpu")
    code, _, err = bothways("serve", *named, "--precision", "int8", "--calibrate", tmp_path / "lines.txt")
    assert code == 0, err
    assert "a runs in int8: cosine 0.99" in err
    assert err.count("with float32 on 2 texts") == 2
    assert [model.calibration for model in measured] == [["A red door.", "The cat sleeps."]] * 2


def test_a_model_that_suffers_is_used_in_another_precision(pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "LEAST_COSINE", 1.1)
    monkeypatch.setattr(loaded, "LEAST_COSINE", 1.1)
    model = bw.load(pretrained, "cpu", "int8")
    with pytest.warns(PrecisionWarning, match=r"precision='int8': cosine [01]\.\d+ with float32 on 32 texts") as warned:
        found = model.embed("the old dog")
    assert warned[0].filename == __file__
    assert model.precision == choose_inference_precision("auto", torch.device("cpu"))
    assert np.array_equal(found, bw.load(pretrained, "cpu").embed("the old dog"))


def test_the_fastest_is_int8_with_vnni_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_vnni, expected in ((True, "int8"), (False, choose_inference_precision("auto", torch.device("cpu")))):
        monkeypatch.setattr("bothways.hardware.cpu_multiplies_int8", lambda has_vnni=has_vnni: has_vnni)
        assert choose_inference_precision("fastest", torch.device("cpu")) == expected
