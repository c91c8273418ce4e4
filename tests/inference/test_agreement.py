"""int8 beside float32, before it is used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import bothways as bw
from bothways.errors import PrecisionWarning
from bothways.inference import agreement, loaded
from bothways.precision import choose_inference_precision


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
