"""What the training verbs print and leave behind at their end."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from signal import Signals
from typing import Any

from bothways.errors import as_shown, install_command
from bothways.files import read_json
from bothways.pages.curves import can_draw_curves
from bothways.pages.report import HtmlReport, add_provenance
from bothways.progress import is_main_process
from bothways.text.tokenizer_backend import MASK
from bothways.train.loop import TrainResult
from bothways.train.run import RunDirectory
from bothways.verbs.printing import say, say_next


def provenance_of(run: RunDirectory) -> dict[str, Any]:
    """Where a finished run's model comes from, and the command that began the run where run.json has it."""
    described = run.described()
    command = {"command": described["command"]} if "command" in described else {}
    return {**command, **read_json(run.model_path / "bothways.json")["provenance"]}


def write_report(run: RunDirectory, report: HtmlReport) -> None:
    """Write the run's page, with where the model comes from, and say so."""
    add_provenance(report, provenance_of(run))
    path = run.path / "report.html"
    report.write(path)
    run.publish()
    print(
        f"{as_shown(path)}: figures"
        + (" and curves" if can_draw_curves() else f"; for curves {install_command('report')}")
    )


def say_finished(out: str, next_command: str, table: Sequence[str] = (), mask: str = MASK) -> None:
    """Where the model is, and what to type next.

    next_command: a verb with its arguments, the model as `{model}` and the rows as `{table}`. table: words for those.
    mask: the vocabulary's token for masks, as `{mask}`.
    """
    print(f"{out}: model in {as_shown(RunDirectory(out).model_path)}")
    say_next(shlex.split(next_command.format(model=shlex.quote(out), table=shlex.join(table), mask=mask)))


def say_interrupted(result: TrainResult, options: Any) -> int:
    """What a signal ended, and how to go on; returns the exit code. options: of the verb, `out` and `overwrite`."""
    assert result.interrupted is not None
    if is_main_process() and not result.steps:
        by = result.interrupted.name
        print(f"{options.out}: stopped by {by} within its first step; the same command again begins anew")
    elif is_main_process():
        stopped = f"{options.out}: stopped by {result.interrupted.name} after step {result.steps:,}, all of it saved"
        print(f"{stopped}; {_same_command(options)} goes on from there")
    return 128 + result.interrupted


def say_stopped(options: Any, signal: Signals) -> int:
    """As `say_interrupted`, on standard error, for a verb that prints a table or JSON; returns the exit code."""
    say(f"{options.out}: stopped, all of it saved; {_same_command(options)} goes on from there")
    return 128 + signal


def _same_command(options: Any) -> str:
    return "the same command again" + (", without --overwrite," if options.overwrite else "")
