"""The progress line: when it is shown, how it is rewritten at a terminal, and how it ends."""

from __future__ import annotations

import io
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from bothways import progress
from bothways.progress import ByteProgress, CountProgress, Progress, ProgressLine, duration, print_note

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


def test_a_terminal_hears_of_unchanged_evaluations_above_the_last_line(terminal: Terminal, wait: Wait) -> None:
    with Progress("t") as training:
        wait(3)
        training.update(1, 2, {"loss": 2.5}, tokens=30, seconds=3)
        training.evaluated(1, {"eval_f1": 0.5})
        training.evaluated(2, {"eval_f1": 0.5})
    line = "t  step 1/2  loss 2.500  ETA 0:03"
    told = [
        f"{line}\r\x1b[Jt  step 1  held-out: f1 0.500",
        f"{line}\r\x1b[Jt  up to step 2  held-out: unchanged",
        line,
        "",
    ]
    assert terminal.getvalue().split("\n") == told


def test_a_narrow_terminal_does_without_the_least_figures(terminal: Terminal, wait: Wait) -> None:
    figures = {"loss": 2.5, "lr": 1e-3, "grad_norm": 1.25, "fraction_of_peak": 0.5}
    with Progress("t") as training:
        wait(3)
        training.update(1, 2, figures, tokens=30, seconds=3)
    assert terminal.getvalue() == "t  step 1/2  loss 2.500  ETA 0:03\n"


def test_a_terminal_gets_notes_in_lines_of_whole_words(terminal: Terminal, file: io.StringIO) -> None:
    note = "a note that is longer than forty columns, with /a/path/that-is/no-word/but/one/that-stays"
    print_note(note)
    assert file.getvalue() == f"{note}\n"
    progress.sys.stderr = terminal
    print_note(note)
    assert terminal.getvalue().splitlines() == [
        "a note that is longer than forty",
        "columns, with",
        "/a/path/that-is/no-word/but/one/that-stays",
    ]


def test_a_slow_step_shows_how_much_of_it_is_done(terminal: Terminal, wait: Wait) -> None:
    with Progress("t") as training:
        training.wait("t  taking the first step …")
        wait(10)
        training.within(1, 11, 0.25, tokens=100, seconds=10)
        wait(30)
        training.update(1, 11, {}, tokens=400, seconds=40)
        wait(10)
        training.within(2, 11, 0.5, tokens=200, seconds=10)
    lines = terminal.getvalue().split("\x1b[J")
    assert [line.split("\x1b")[0].rstrip("\r\n") for line in lines] == [
        "t  taking the first step …",
        "t  step 1/11, 25% of it done  10 tokens/s  ETA 7:10",  # 10.75 steps of 40 s
        "t  step 1/11  10 tokens/s  ETA 6:40",
        "t  step 2/11, 50% of it done  20 tokens/s  ETA 6:20",  # 9.5 steps of 40 s
    ]


def test_what_is_waited_for_is_gone_afterwards_and_never_in_a_file(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with progress.waiting("loading …"):
        print_note("said")
    assert terminal.getvalue() == "loading …" + "\r\x1b[Jsaid\nloading …" + "\r\x1b[J"
    file = io.StringIO()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=file))
    with progress.waiting("loading …"):
        pass
    assert file.getvalue() == ""


def test_the_next_line_in_place_and_the_end_of_a_command_leave_the_one_before(terminal: Terminal, wait: Wait) -> None:
    first, second = ProgressLine("a"), ProgressLine("b")
    first.draw("a 1")
    second.draw("b 1")
    progress.end_line()
    print_note("bothways: an error")
    assert terminal.getvalue() == "a 1\nb 1\nbothways: an error\n"


def test_passes_over_a_corpus_count_together(file: io.StringIO, wait: Wait) -> None:
    with ByteProgress("tokenizer", 10_000_000, passes=2) as reading:
        wait(12)
        reading.update(SimpleNamespace(documents=9, bytes_read=2_000_000), begun=1)
    assert file.getvalue() == "tokenizer  9 documents  1.0 MB/s  ETA 0:08\n"


def test_bytes_of_a_corpus(terminal: Terminal, wait: Wait) -> None:
    with ByteProgress("prepare", 40_000_000) as reading:
        wait(4)
        reading.update(SimpleNamespace(documents=1200, bytes_read=10_000_000), 5000)
    assert terminal.getvalue() == "prepare  1,200 documents, 5,000 tokens  2.5 MB/s  ETA 0:12\n"


@pytest.mark.parametrize(("seconds", "text"), [(-1, "0:00"), (5, "0:05"), (750, "12:30"), (3723, "1:02:03")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
