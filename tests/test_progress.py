"""The progress line: when it is shown, how it is rewritten at a terminal, and how it ends."""

from __future__ import annotations

import io
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from bothways import progress
from bothways.progress import ByteProgress, CountProgress, Progress, ProgressLine, duration

Wait = Callable[[float], None]


class Terminal(io.StringIO):
    """A terminal of forty columns."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=terminal))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    return terminal


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    file = io.StringIO()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=file))
    return file


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Wait:
    """Lets seconds pass."""
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def count_to(total: int, seconds: float, wait: Wait) -> None:
    counting = CountProgress("embed", total)
    for done in range(1, total + 1):
        wait(seconds / total)
        counting(done)


@pytest.mark.parametrize("kind", ["terminal", "file"])
def test_a_job_of_under_two_seconds_is_silent(kind: str, request: pytest.FixtureRequest, wait: Wait) -> None:
    screen = request.getfixturevalue(kind)
    count_to(100, 1.9, wait)
    assert screen.getvalue() == ""


def test_a_file_gets_a_line_every_ten_seconds_and_the_last(file: io.StringIO, wait: Wait) -> None:
    count_to(100, 25, wait)
    assert file.getvalue().splitlines() == [
        "embed  40/100  ETA 0:15  4/s",
        "embed  80/100  ETA 0:05  4/s",
        "embed  100/100  ETA 0:00  4/s",
    ]


def test_a_terminal_gets_one_line_rewritten_in_place_twice_a_second(terminal: Terminal, wait: Wait) -> None:
    count_to(40, 10, wait)
    *earlier, last = terminal.getvalue().split("\r\x1b[J")
    assert len(earlier) == 16, "two a second from the third second on"
    assert earlier[0] == "embed  8/40  ETA 0:08  4/s"
    assert last == "embed  40/40  ETA 0:00  4/s\n"


def test_a_line_longer_than_the_terminal_is_erased_whole(terminal: Terminal, wait: Wait) -> None:
    line = ProgressLine("x")
    line.draw("a" * 81)  # three rows of forty columns
    line.draw("b")
    line.say("said")
    line.end()
    line.end()
    assert terminal.getvalue() == "a" * 81 + "\x1b[2A\r\x1b[Jb" + "\r\x1b[Jsaid\nb" + "\n"


def test_a_job_that_stops_half_way_ends_its_line(terminal: Terminal, wait: Wait) -> None:
    def job() -> None:
        with CountProgress("predict") as counting:
            wait(3)
            counting(6)
            raise KeyError

    with pytest.raises(KeyError):
        job()
    assert terminal.getvalue() == "predict  6  2/s\n"


def test_what_an_earlier_run_did_counts_for_no_speed(file: io.StringIO, wait: Wait) -> None:
    counting = CountProgress("embed", 1000, before=900)
    wait(10)
    counting(950)
    assert file.getvalue() == "embed  950/1,000  ETA 0:10  5/s\n"


def test_training_shows_the_figures_it_knows_and_keeps_evaluations(file: io.StringIO, wait: Wait) -> None:
    with Progress("pretrain") as training:
        for step, held_out in ((1, 2.75), (2, 2.5), (3, 2.25)):
            wait(6)
            training.update(step, 3, {"loss": 2.5, "mlm_accuracy": 0.25, "other": 1.0}, tokens=1200, seconds=6)
            training.evaluated(step, {"eval_loss": held_out})
    assert file.getvalue().splitlines() == [
        "pretrain  step 1  held-out: loss 2.750",
        "pretrain  step 2/3  loss 2.500  mlm 25.0%  200 tokens/s  ETA 0:06",
        "pretrain  step 2  held-out: loss 2.500",
        "pretrain  step 3/3  loss 2.500  mlm 25.0%  200 tokens/s  ETA 0:00",
        "pretrain  step 3  held-out: loss 2.250",
    ]
    hidden = Progress("pretrain", shown=False)
    before = file.getvalue()
    wait(60)
    hidden.update(3, 3, {"loss": 1.0}, 1, 1.0)
    hidden.say("nothing")
    assert file.getvalue() == before


def test_equal_evaluations_are_one_line_and_epochs_are_counted(file: io.StringIO) -> None:
    with Progress("finetune") as training:
        training.steps_per_epoch = 4
        for step, accuracy in ((4, 0.5), (8, 0.75), (12, 0.75), (16, 0.75), (20, 0.9), (22, 0.9)):
            training.evaluated(step, {"eval_accuracy": accuracy})
    assert file.getvalue().splitlines() == [
        "finetune  epoch 1  held-out: accuracy 0.500",
        "finetune  epoch 2  held-out: accuracy 0.750",
        "finetune  up to epoch 4  held-out: unchanged",
        "finetune  epoch 5  held-out: accuracy 0.900",
        "finetune  up to epoch 6  held-out: unchanged",
    ]


def test_bytes_of_a_corpus(terminal: Terminal, wait: Wait) -> None:
    with ByteProgress("prepare", 40_000_000) as reading:
        wait(4)
        reading.update(SimpleNamespace(documents=1200, bytes_read=10_000_000), 5000)
    assert terminal.getvalue() == "prepare  1,200 documents, 5,000 tokens  2.5 MB/s  ETA 0:12\n"


@pytest.mark.parametrize(("seconds", "text"), [(-1, "0:00"), (5, "0:05"), (750, "12:30"), (3723, "1:02:03")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
