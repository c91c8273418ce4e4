"""What the training verbs print and leave behind at their end."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from signal import Signals
from typing import Any

from bothways.errors import install_command
from bothways.files import read_json
from bothways.pages.report import HtmlReport, add_provenance, can_report
from bothways.train.distributed import is_main_process
from bothways.train.loop import TrainResult
from bothways.train.run import RunDirectory
from bothways.verbs.printing import say, say_next


def write_report(run: RunDirectory, report: HtmlReport) -> None:
    """Write the run's page, with where the model comes from, and say so."""
    add_provenance(report, read_json(run.model_path / "bothways.json")["provenance"])
    path = run.path / "report.html"
    report.write(path)
    print(f"{path}: figures" + (" and curves" if can_report() else f"; for curves {install_command('report')}"))


def say_finished(out: str, next_command: str, table: Sequence[str] = ()) -> None:
    """Where the model is, and what to type next.

    next_command: a verb with its arguments, the model as `{model}` and the rows as `{table}`. table: words for those.
    """
    print(f"{out}: model in {RunDirectory(out).model_path}")
    say_next(shlex.split(next_command.format(model=shlex.quote(out), table=shlex.join(table))))


def say_interrupted(result: TrainResult, options: Any) -> int:
    """What a signal ended, and how to go on; returns the exit code. options: of the verb, `out` and `overwrite`."""
    assert result.interrupted is not None
    if is_main_process():
        stopped = f"{options.out}: stopped by {result.interrupted.name} after step {result.steps:,}, all of it saved"
        print(f"{stopped}; {_same_command(options)} goes on from there")
    return 128 + result.interrupted


def say_stopped(options: Any, signal: Signals) -> int:
    """As `say_interrupted`, on standard error, for a verb that prints a table or JSON; returns the exit code."""
    say(f"{options.out}: stopped, all of it saved; {_same_command(options)} goes on from there")
    return 128 + signal


def _same_command(options: Any) -> str:
    return "the same command again" + (", without --overwrite," if options.overwrite else "")
