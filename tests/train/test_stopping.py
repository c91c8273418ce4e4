"""How a training is stopped: the answer comes at once, a step is given up between micro-batches, nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bothways.checkpoint.hugging_face import load_checkpoint
from bothways.data.prepare import prepare
from bothways.data.store import TokenStore
from bothways.progress import Progress
from bothways.train.pretrain import pretrain
from bothways.train.run import RunDirectory
from bothways.train.stopping import StopSignals
from bothways.verbs.run_output import say_interrupted
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_tokenizer
from tests.train.running import OPTIONS, state_of

CUT = replace(OPTIONS, micro_batch_tokens=64, checkpoint_every=5)  # several micro-batches in each step


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    folder = tmp_path_factory.mktemp("stopping")
    write_corpus(folder / "c.jsonl", documents=100)
    return prepare([str(folder / "c.jsonl")], tiny_tokenizer(), folder / "store")


class StopWithin(Progress):
    """Sends signals within a step, counted from 1."""

    def __init__(self, step: int, signals: int = 1) -> None:
        super().__init__("pretrain")
        self.stop_step, self.signals = step, signals
        self.said: list[str] = []
        self.answered = threading.Event()

    def within(self, step: int, steps: int, share: float, tokens: int, seconds: float) -> None:
        assert 0 < share < 1
        if step == self.stop_step and self.signals:
            for _ in range(self.signals):
                os.kill(os.getpid(), signal.SIGINT)
            self.signals = 0
            assert self.answered.wait(30)

    def say(self, text: str) -> None:
        self.said.append(text)
        if text.startswith("stopping"):
            self.answered.set()


def test_a_step_that_was_given_up_leaves_no_trace(store: TokenStore, tmp_path: Path) -> None:
    pretrain(store.directory, tmp_path / "whole", CUT, progress=StopWithin(-1))
    for stop in (2, 7):
        run, progress = tmp_path / f"stopped{stop}", StopWithin(stop)
        first = pretrain(store.directory, run, CUT, progress=progress)
        assert (first.steps, first.interrupted) == (stop - 1, signal.SIGINT)
        [answer] = [line for line in progress.said if line.startswith("stopping")]
        assert answer.endswith(f"(Ctrl-C again stops at once; {['nothing is saved yet', 'step 5 is saved'][stop > 5]})")
        resumed = StopWithin(-1)
        pretrain(store.directory, run, CUT, progress=resumed)
        assert f"resuming at step {stop - 1} of 12" in resumed.said
        assert state_of(run) == state_of(tmp_path / "whole")


def test_within_the_first_step_there_is_nothing_to_save(
    store: TokenStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = pretrain(store.directory, tmp_path / "run", CUT, progress=StopWithin(1))
    assert (result.steps, result.interrupted) == (0, signal.SIGINT)
    assert not RunDirectory(tmp_path / "run").checkpoints()
    assert say_interrupted(result, SimpleNamespace(out=str(tmp_path / "run"), overwrite=False)) == 130
    assert "stopped by SIGINT within its first step; the same command again begins anew" in capsys.readouterr().out
    assert pretrain(store.directory, tmp_path / "run", CUT, progress=StopWithin(-1)).interrupted is None


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (3, "nothing is saved in .*run yet, so the same command again begins anew"),
        (8, "run has step 5, and the same command again goes on from there"),
    ],
)
def test_a_second_signal_says_what_is_kept(store: TokenStore, tmp_path: Path, step: int, words: str) -> None:
    with pytest.raises(KeyboardInterrupt, match=f"stopped at once; .*{words}"):
        pretrain(store.directory, tmp_path / "run", CUT, progress=StopWithin(step, signals=2))


def test_the_answer_does_not_wait_for_the_main_thread() -> None:
    answered, answers = threading.Event(), []

    def answer(number: signal.Signals) -> None:
        answers.append((number, threading.current_thread() is threading.main_thread()))
        answered.set()

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopSignals(answer, lambda: "last words") as signals:
        signal.raise_signal(signal.SIGTERM)
        assert answered.wait(30)
        assert signals.caught == [signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt, match="last words"):
            signal.raise_signal(signal.SIGINT)
    assert answers == [(signal.SIGTERM, False)]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_another_thread_handles_no_signals() -> None:
    found: list[Any] = []

    def work() -> None:
        with StopSignals(found.append, str) as signals:
            found.append(signals.caught)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [[]]


def test_the_start_says_what_will_be_done(store: TokenStore, tmp_path: Path) -> None:
    progress = StopWithin(-1)
    pretrain(store.directory, tmp_path / "run", CUT, progress=progress)
    [line] = [line for line in progress.said if line.startswith("pretrain: ")]
    tokens = 12 * CUT.tokens_per_step
    times = load_checkpoint(tmp_path / "run").metadata["provenance"]["epochs"]  # as info and the report say it
    assert line.startswith("pretrain: tiny, ")
    assert f"parameters, on cpu in float32; 12 steps of {CUT.tokens_per_step:,} tokens at length 32: " in line
    assert line.endswith(f": {tokens:,} tokens, the text {times:.1f} times")
    again = StopWithin(-1)
    pretrain(store.directory, tmp_path / "run", CUT, progress=again)
    assert not [line for line in again.said if line.startswith("pretrain: ")], "there is nothing left to do"
