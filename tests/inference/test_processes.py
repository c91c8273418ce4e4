"""A predictor used after a fork, and by many threads: the answers of one process and one thread."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bothways as bw
from bothways.hardware import keep_number_of_threads, use_threads
from bothways.precision import PRECISIONS, InferencePrecision

pytestmark = pytest.mark.slow

TEXTS = [" ".join(["the dog runs. a cat sleeps in the old house."] * (1 + n % 7)) for n in range(40)]
# (what is asked, of which model)
ASKED: dict[str, tuple[Callable[[bw.Predictor], Any], str]] = {
    "embed": (lambda model: model.embed(TEXTS).tolist(), "pretrained"),
    "fill": (lambda model: model.fill("the [MASK] runs."), "pretrained"),
    "score": (lambda model: model.score(TEXTS[0]), "pretrained"),
    "classify": (lambda model: model.classify(TEXTS), "classifier"),
    "generate": (lambda model: model.generate("the dog", max_tokens=5), "causal"),
}

# In a process of its own with two threads for products, as the parent's pool is what a child would wait for. One for
# all precisions, as a start takes longer than what is asked.
FORK = """
import multiprocessing, sys, torch, bothways as bw
from tests.inference.test_processes import ASKED
torch.set_num_threads(2)
precisions, *models = sys.argv[1:]
models = dict(model.split("=", 1) for model in models)
context = multiprocessing.get_context("fork")
def answer(queue, ask, model): queue.put(ask(model) is not None)
torch.randn(700, 700) @ torch.randn(700, 700)
torch.nn.functional.layer_norm(torch.randn(4000, 256), (256,))
for precision in precisions.split():
    for name, (ask, which) in ASKED.items():
        for warm in (False, True):
            model = bw.load(models[which], device="cpu", precision=precision)
            if warm: ask(model)
            queue = context.Queue()
            child = context.Process(target=answer, args=(queue, ask, model), daemon=True)
            child.start()
            child.join(30)
            print(precision, name, warm, "hangs" if child.is_alive() else child.exitcode)
            child.kill()
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from tests.nets.models import assemble

    folder = tmp_path_factory.mktemp("models")
    for kind, name in (("pretrained", "pretraining"), ("classifier", "classify"), ("causal", "causal")):
        assemble(name, folder / kind)
    return {kind: folder / kind for kind in ("pretrained", "classifier", "causal")}


@pytest.fixture(scope="module")
def forked(models: dict[str, Path]) -> list[str]:
    """How each child ended: precision, what was asked, whether the model had been asked before, exit code."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    called = [sys.executable, "-c", FORK, " ".join(PRECISIONS), *(f"{kind}={path}" for kind, path in models.items())]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(called, env={**environment, "PYTHONPATH": root}, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_model_loaded_before_a_fork_answers_in_the_child(precision: str, forked: list[str]) -> None:
    expected = [f"{precision} {name} {warm} 0" for name in ASKED for warm in (False, True)]
    assert [line for line in forked if line.startswith(f"{precision} ")] == expected


@pytest.mark.parametrize("precision", PRECISIONS)
def test_eight_threads_on_one_predictor_get_what_one_gets(
    precision: InferencePrecision, models: dict[str, Path]
) -> None:
    for name, (ask, which) in ASKED.items():
        expected = ask(bw.load(models[which], device="cpu", precision=precision))
        shared = bw.load(models[which], device="cpu", precision=precision)  # nothing is prepared yet: all begin at once
        together = threading.Barrier(8)

        def wait_and_ask(_: int, ask: Callable[[bw.Predictor], Any] = ask, model: Any = shared) -> Any:
            together.wait()  # noqa: B023
            return [ask(model) for _ in range(2)]

        with ThreadPoolExecutor(8) as pool:
            for found in pool.map(wait_and_ask, range(8)):
                for answer in found:
                    if name == "embed":
                        assert np.array_equal(answer, expected)
                    assert answer == expected, name


def test_the_number_of_threads_is_what_it_was_after_threads_that_overlap() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        first_is_in, second_is_in = threading.Event(), threading.Event()
        seen = []

        def first() -> None:
            with keep_number_of_threads():
                use_threads(1)
                first_is_in.set()
                second_is_in.wait()

        def second() -> None:
            first_is_in.wait()
            with keep_number_of_threads() as number:
                seen.append(number)
                second_is_in.set()
                threads[0].join()

        threads = [threading.Thread(target=call) for call in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert seen == [3, 3]
    finally:
        torch.set_num_threads(before)
