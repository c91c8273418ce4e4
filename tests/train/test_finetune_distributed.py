"""Fine-tuning by two real processes (torchrun, gloo): for every task the same model and the same figures as by one,
also where a run goes on with another number of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from bothways.checkpoint.hugging_face import Checkpoint, new_model, save_checkpoint
from bothways.inference import engine
from bothways.model.families import head_builder
from bothways.train.run import RunDirectory
from tests.helpers import tiny_config, tiny_tokenizer
from tests.train.finetune_tasks import CASES, FEW_TOKENS, STOPPED_AFTER, classify, evaluate_all, finetune_all
from tests.train.launching import torchrun

pytestmark = pytest.mark.slow
TOLERANCE = 5e-5  # a twentieth of what a step changes at this learning rate
NO_GRADIENT = 1e-12  # Adam's mean of squares, after few steps a thousandth of the gradient's square


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs that one process made (`one`) and two made (`two`)."""
    folder = tmp_path_factory.mktemp("finetune")
    for name, head, config in (
        ("base", "pretraining", tiny_config()),
        ("causal", "causal-LM", tiny_config(is_decoder=True)),
    ):
        save_checkpoint(Checkpoint(new_model(config, head_builder(head), seed=1), tiny_tokenizer()), folder / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "inference_batch_tokens", lambda device: FEW_TOKENS)
        finetune_all(folder, folder / "one")
        classify(folder, folder / "resumed", STOPPED_AFTER)
        code, said = torchrun("tests.train.finetune_tasks", folder, folder / "two")
        assert code == 0, said
        classify(folder, folder / "two" / "stopped")
        (folder / "figures.json").write_text(json.dumps(evaluate_all(folder / "one")))
    (folder / "said").write_text(said)
    return folder


def metrics(run: Path, prefix: str = "") -> dict[str, list[float]]:
    """The figures of all lines of a run's metrics whose names begin so, but the clock's."""
    figures: dict[str, list[float]] = {}
    for line in RunDirectory(run).metrics():
        for name, value in line.items():
            if name.startswith(prefix) and name not in ("seconds", "tokens_per_second", "fraction_of_peak"):
                figures.setdefault(name, []).append(value)
    return figures


def furthest(a: Path, b: Path) -> float:
    """The largest difference of a weight between the last checkpoints of two runs. Which epoch is the best may differ,
    as ranks and decisions about few rows turn with the last bit.

    Weights whose gradient is nothing but rounding are left out, a softmax's bias say: Adam makes steps of it as large
    as of any other.
    """
    last = [RunDirectory(run).checkpoints()[-1] for run in (a, b)]
    one, other = (load_file(path / "model.safetensors") for path in last)
    squares = load_file(last[0] / "optimizer.safetensors")
    assert one.keys() == other.keys()
    learnt = {name: squares[f"{name}/exp_avg_sq"] > NO_GRADIENT for name in one if f"{name}/exp_avg_sq" in squares}
    assert sum(int(which.sum()) for which in learnt.values()) > 1000
    return max(float((one[name] - other[name])[which].abs().max()) for name, which in learnt.items() if which.any())


@pytest.mark.parametrize("name", CASES)
def test_two_processes_learn_what_one_learns(runs: Path, name: str) -> None:
    one, two = runs / "one" / name, runs / "two" / name
    assert furthest(one, two) < TOLERANCE
    expected, found = metrics(one), metrics(two)
    assert expected.keys() == found.keys()
    assert (found["tokens"], found["lr"]) == (expected["tokens"], expected["lr"])
    for figure in ("loss", "grad_norm", *(name for name in expected if name in ("soft_loss", "eval_log_likelihood"))):
        assert np.allclose(found[figure], expected[figure], rtol=0, atol=1e-4), figure
    assert len(list(csv.reader((two / "predictions.csv").open(encoding="utf-8-sig")))) == 1 + len(CASES[name][2])


def test_an_evaluation_is_that_of_one_process_to_the_bit(runs: Path) -> None:
    """Of the same weights, on every process."""
    expected = (runs / "figures.json").read_text()
    assert set(json.loads(expected)) == set(CASES)
    for rank in range(2):
        assert (runs / "two" / f"figures-{rank}.json").read_text() == expected


@pytest.mark.parametrize("run", ["resumed", "two/stopped"])
def test_a_run_goes_on_with_another_number_of_processes(runs: Path, run: str) -> None:
    whole = runs / "one" / "classify"
    assert furthest(runs / run, whole) < TOLERANCE
    losses = [metrics(path)["loss"] for path in (runs / run, whole)]
    assert np.allclose(*losses, rtol=0, atol=1e-5)
    assert metrics(runs / run).keys() == metrics(whole).keys()
    assert (runs / run / "evaluation.json").exists()
    assert not (runs / run / "best").exists()


def test_only_the_first_process_speaks(runs: Path) -> None:
    said = (runs / "said").read_text().splitlines()
    epochs = [line for line in said if line.startswith("finetune choose  epoch 1 ")]
    assert len(epochs) == 1
