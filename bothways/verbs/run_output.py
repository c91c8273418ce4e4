"""What the training verbs say and leave behind at their end."""

from __future__ import annotations

from bothways.pages.report import HtmlReport, can_report
from bothways.train.distributed import is_main_process
from bothways.train.loop import TrainResult
from bothways.train.run import RunDirectory


def write_report(run: RunDirectory, report: HtmlReport) -> None:
    path = run.path / "report.html"
    report.write(path)
    print(f"{path}: figures" + (" and curves" if can_report() else "; curves need pip install 'bothways[report]'"))


def say_interrupted(result: TrainResult, out: str) -> int:
    assert result.interrupted is not None
    if not is_main_process():
        return 128 + result.interrupted
    print(f"{out}: stopped by {result.interrupted.name} after step {result.steps:,}, all of it saved; ", end="")
    print("the same command again goes on from there")
    return 128 + result.interrupted
