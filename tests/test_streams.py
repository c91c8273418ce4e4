"""Standard streams that are closed, full, gone or of another kind: a command works, or says why in one line."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from bothways.cli import main
from tests.helpers import Run

ROOT = str(Path(__file__).parents[1])


def shell(command: str, place: Path) -> tuple[int, str, str]:
    """Run a line of bash in which `BOTHWAYS` is the command; exit code of the first of a pipe, output, errors."""
    python = f"{sys.executable} -m bothways.cli"
    script = f"set -o pipefail; export PYTHONPATH={ROOT}; {command.replace('BOTHWAYS', python)}"
    done = subprocess.run(["bash", "-c", script], cwd=place, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


ONE_LINE = {
    "closed output": ("BOTHWAYS info model >&-", 2, "standard output is closed; send it to a file or to /dev/null"),
    "closed output of help": ("BOTHWAYS --help >&-", 2, "standard output is closed"),
    "closed output of a verb's help": ("BOTHWAYS embed --help >&-", 2, "standard output is closed"),
    "closed input": ("BOTHWAYS embed model <&-", 2, "standard input: no text in it"),
    "input that can only be written": ("BOTHWAYS embed model 0>written", 2, "standard input cannot be read"),
    "full disk": ("BOTHWAYS embed model 'the dog' >/dev/full", 2, "the output cannot be written: No space left"),
    "full disk under help": ("BOTHWAYS --help >/dev/full", 2, "the output cannot be written: No space left"),
    "full disk under a verb's help": ("BOTHWAYS info --help >/dev/full", 2, "the output cannot be written: No space"),
    "full disk under the version": ("BOTHWAYS --version >/dev/full", 2, "the output cannot be written: No space left"),
}
SILENT = {
    "errors closed": ("BOTHWAYS nonsense 2>&-", 2),
    "errors on a full disk": ("BOTHWAYS nonsense 2>/dev/full", 2),
    "both closed": ("BOTHWAYS info model >&- 2>&-", 2),
    "the reader of the output has gone": ("exec 3> >(true); wait $!; BOTHWAYS --help >&3", 141),
    "the reader of the errors has gone": ("BOTHWAYS nonsense 2> >(sleep 0)", 2),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.nets.models import assemble

    folder = tmp_path_factory.mktemp("streams")
    assemble("pretraining", folder / "model")
    return folder


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("name", ONE_LINE)
def test_a_stream_that_cannot_be_used_is_one_line(name: str, place: Path) -> None:
    command, code, message = ONE_LINE[name]
    found, _, errors = shell(command, place)
    assert found == code, errors
    assert message in errors
    assert errors.count("\n") == 1, errors


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("name", SILENT)
def test_errors_that_nobody_can_read_leave_the_exit_code(name: str, place: Path) -> None:
    command, code = SILENT[name]
    found, out, errors = shell(command, place)
    assert (found, out, errors) == (code, "", "")


def test_a_command_answers_without_a_standard_error(place: Path, bothways: Run) -> None:
    code, expected, _ = bothways("embed", place / "model", "the dog")
    assert code == 0
    for errors in ("2>&-", "2>/dev/full"):
        assert shell(f"BOTHWAYS embed model 'the dog' {errors}", place) == (0, expected, "")


def test_streams_of_another_kind(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for given, code, message in (
        (io.StringIO("the dog"), 0, ""),
        (None, 2, "standard input: no text in it"),
    ):
        out, errors = io.StringIO(), io.StringIO()
        with monkeypatch.context() as patch:
            for name, stream in (("stdin", given), ("stdout", out), ("stderr", errors)):
                patch.setattr(sys, name, stream)
            assert main(["embed", str(place / "model")]) == code
        assert message in errors.getvalue()
        assert ("embedding" in out.getvalue()) is (code == 0)
