"""Tables and figures in the terminal's width."""

from __future__ import annotations

import shlex

import pytest

from bothways.verbs.printing import figure_lines, size_in_words, table_lines
from bothways.verbs.screen import print_lines, wrapped

HEADS = ["on 90 held-out rows", "accuracy", "training", "size", "one text of 128 tokens"]
ROWS = [
    ["word2vec, averaged, and logistic regression", "93.3%", "12.3 s", "12.3 MB", "1.2 ms"],
    ["[b]x", "5%", "1 s", "1 kB", "2 ms"],
]


@pytest.fixture(params=[44, 60, 80, 120])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("COLUMNS", str(request.param))
    return int(request.param)


def test_a_table_fits_and_no_number_is_broken(columns: int) -> None:
    lines = table_lines(HEADS, ROWS, least=["size", "training"])
    assert max(map(len, lines)) <= columns
    text = "\n".join(lines)
    assert "93.3%" in text
    assert "1.2 ms" in text
    assert "…" not in text
    assert "[b]x" in text  # no markup
    left_out = {44: "size, training", 60: "size"}.get(columns, "")
    assert ("(no room for" in text) == bool(left_out)
    for head in ("size", "training"):
        assert any(line.split()[-1:] == ["shows"] or head in line for line in lines)
    assert len(table_lines(HEADS, ROWS)) == 4 if columns == 120 else True


def test_figures_break_between_and_a_wide_matrix_is_numbered(columns: int) -> None:
    labels = {f"a long label {number}": {"p": 0.5, "r": 0.25, "f": 0.125, "n": 1234} for number in range(5)}
    figures = {"accuracy": 0.9, "macro_f1": 0.8, "expected_calibration_error": 0.125, "labels": labels}
    lines = figure_lines({**figures, "confusion": [[7] * 5] * 5})
    assert max(map(len, lines)) <= columns
    assert lines[0].startswith("accuracy 0.900   macro f1 0.800")
    assert any("expected calibration error 0.125" in line for line in lines)
    matrix = next(line for line in lines if line.strip().startswith("truth"))
    assert ("a long label 3" in matrix) == (columns == 120)
    many = {f"label {number}": {"p": 1.0, "r": 1.0, "f": 1.0, "n": 1} for number in range(12)}
    wide = figure_lines({"labels": many, "confusion": [[9_999] * 12] * 12})
    assert ("no room for the confusion matrix" in wide[-1]) == (columns < 120)


def test_sizes() -> None:
    shown = [size_in_words(size) for size in (12, 9_876, 43_210, 123_456, 4_500_000, 1_300_000_000)]
    assert shown == ["12 B", "9.9 kB", "43.2 kB", "0.1 MB", "4.5 MB", "1,300.0 MB"]


def test_a_long_line_breaks_between_words_and_a_command_can_be_pasted(columns: int) -> None:
    line = "labels: " + ", ".join(f"request-about-{number}" for number in range(20))
    lines = wrapped(line, columns)
    assert max(map(len, lines)) <= columns
    assert " ".join(map(str.strip, lines)) == line
    command = "bothways finetune classify --model 'my run' --train a.jsonl --eval b.jsonl --out tickets --epochs 2"
    lines = wrapped(f"begun with: {command}", columns)
    assert max(map(len, lines)) <= columns
    pasted = "\n".join(lines).partition(": ")[2].replace("\\\n", "")  # as a shell goes on with a line
    assert shlex.split(pasted) == shlex.split(command)


def test_lines_are_broken_at_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    line = "a run that has finished, " * 5
    print_lines([line])
    assert capsys.readouterr().out == f"{line}\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    print_lines([line])
    broken = capsys.readouterr().out.splitlines()
    assert max(map(len, broken)) <= 40
    assert " ".join(broken).split() == line.split()
