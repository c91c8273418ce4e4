"""What the training verbs print and leave behind at their end."""

from __future__ import annotations

import shlex
from signal import Signals

from bothways.errors import install_command
from bothways.files import read_json
from bothways.pages.report import HtmlReport, add_provenance, can_report
from bothways.train.distributed import is_main_process
from bothways.train.loop import TrainResult
from bothways.train.run import RunDirectory
from bothways.verbs.printing import say


def write_report(run: RunDirectory, report: HtmlReport) -> None:
    """Write the run's page, with where the model comes from, and say so."""
    add_provenance(report, read_json(run.model_path / "bothways.json")["provenance"])
    path = run.path / "report.html"
    report.write(path)
    print(f"{path}: figures" + (" and curves" if can_report() else f"; for curves {install_command('report')}"))


def say_finished(out: str, next_command: str) -> None:
    """Where the model is, and what to type next. next_command: a verb with its arguments, the model as `{model}`."""
    print(f"{out}: model in {RunDirectory(out).model_path}")
    print(f"next: bothways {next_command.format(model=shlex.quote(out))}")


def say_interrupted(result: TrainResult, out: str) -> int:
    """What a signal ended, and how to go on; returns the exit code."""
    assert result.interrupted is not None
    if is_main_process():
        print(f"{out}: stopped by {result.interrupted.name} after step {result.steps:,}, all of it saved; ", end="")
        print("the same command again goes on from there")
    return 128 + result.interrupted


def say_stopped(out: str, signal: Signals) -> int:
    """As `say_interrupted`, on standard error, for a verb that prints a table or JSON; returns the exit code."""
    say(f"{out}: stopped, all of it saved; the same command again goes on from there")
    return 128 + signal
