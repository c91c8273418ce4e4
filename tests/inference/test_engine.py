"""The engine: order, chunks, threads, precision, and that a text's result does not depend on the others."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import bothways as bw
from bothways import hardware
from bothways.errors import TruncationWarning, UserError
from bothways.hardware import allowed_by_onednn
from bothways.inference import engine, prepared
from bothways.precision import choose_inference_precision, choose_precision
from bothways.predictor import Predictor
from bothways.prefetch import prefetch

TEXTS = [
    "My router has no light.",
    "The bill is wrong again",
    "word " * 90,
    "x",
    "Since the update of last night the app asks for a password that nobody ever gave me, and then it closes.",
    "naïve café 東京",
    "The bill is wrong again",
    *(f"ticket number {n} is {'very ' * (n % 23)}urgent" for n in range(60)),
]


@pytest.fixture(scope="module")
def model(minilm: Path) -> Predictor:
    return bw.load(minilm, precision="float32")


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("int8", 1e-5), ("bfloat16", 2e-3)], ids=str)
def test_a_vector_does_not_depend_on_company_or_place(
    precision: prepared.InferencePrecision, tolerance: float, minilm: Path, model: Predictor
) -> None:
    texts = TEXTS[:16] if precision == "bfloat16" else TEXTS
    asked = bw.load(minilm, precision=precision)
    together = asked.embed(texts)
    backwards = asked.embed(texts[::-1])[::-1]
    alone = np.stack([asked.embed(text) for text in texts])
    np.testing.assert_allclose(together, alone, atol=tolerance, rtol=0)
    np.testing.assert_allclose(together, backwards, atol=tolerance, rtol=0)
    assert (together * alone).sum(1).min() > 0.9999
    least = {"float32": 0.999999, "int8": 0.97, "bfloat16": 0.999}[precision]
    assert (together * model.embed(texts)).sum(1).min() > least


def test_chunks_and_threads_change_nothing(model: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, threads = model.embed(TEXTS), torch.get_num_threads()
    monkeypatch.setattr(engine, "CHUNK_TEXTS", 7)
    monkeypatch.setattr(hardware, "INFERENCE_BATCH_TOKENS", {"cpu": 64})
    seen: list[int] = []
    np.testing.assert_allclose(model.embed(TEXTS, on_progress=seen.append), expected, atol=1e-5)
    assert seen == sorted(seen)
    assert seen[-1] == len(TEXTS)
    assert torch.get_num_threads() == threads


def test_a_fault_in_a_batch_or_a_chunk_comes_out(model: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "INFERENCE_BATCH_TOKENS", {"cpu": 64})

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.embed(TEXTS, on_progress=stop)
    quotients = prefetch(lambda number: 1 // number, [1, 0, 1])
    assert next(quotients) == 1
    with pytest.raises(ZeroDivisionError):
        next(quotients)


def test_truncation_is_counted_over_all_chunks(model: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CHUNK_TEXTS", 2)
    long = "word " * (model.sequence_length + 5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TruncationWarning)
        model.embed(["a", long, long, "b", "c"])
    assert [str(warning.message) for warning in caught] == [
        f"2 of 5 texts are longer than {model.sequence_length} tokens and were cut short"
    ]


def test_auto_is_bfloat16_only_where_the_hardware_has_it_and_onednn_may_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    for limit, expected in (
        ("ALL", "bfloat16"),
        ("avx512_core_amx", "bfloat16"),
        ("AVX512_CORE_BF16", "bfloat16"),
        ("AVX512_CORE_VNNI", "float32"),
        ("AVX2", "float32"),
    ):
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
        assert choose_inference_precision("auto", cpu) == expected, limit
    assert allowed_by_onednn("VNNI") is False
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    assert choose_precision("auto", cpu) == torch.bfloat16
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert choose_inference_precision("auto", cpu) == "float32"


def test_without_newer_instructions_the_answers_are_the_same(minilm: Path, model: Predictor, tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np, bothways as bw\n"
        "m = bw.load(sys.argv[1])\n"
        "assert m.precision == 'float32', m.precision\n"
        "np.save(sys.argv[2], m.embed(['My router has no light.', 'x']))"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "SSE41"}
    command = [sys.executable, "-c", code, minilm, tmp_path / "vectors.npy"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(
        np.load(tmp_path / "vectors.npy"), model.embed(["My router has no light.", "x"]), atol=1e-5
    )


def test_int8_is_for_cpus_and_names_are_checked() -> None:
    with pytest.raises(UserError, match="precision='int8': on a CPU only, this is cuda; use bfloat16"):
        choose_inference_precision("int8", torch.device("cuda"))
    with pytest.raises(UserError, match="precision='int4': accepted: auto, fastest, float32, bfloat16, int8"):
        choose_inference_precision("int4", torch.device("cpu"))  # type: ignore[arg-type]
