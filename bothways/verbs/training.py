"""`bothways pretrain` and `bothways finetune TASK`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from tyro.conf import Positional

from bothways.errors import UserError
from bothways.files import read_json
from bothways.recipes import parse
from bothways.tasks import TASKS, find_task
from bothways.train import finetune as finetuning
from bothways.train import pretrain as pretraining
from bothways.train.assembly import PretrainOptions
from bothways.train.distributed import speaks
from bothways.train.loop import TrainResult
from bothways.train.report import Report, add_provenance, can_report, finetuning_report, pretraining_report
from bothways.train.run import RunDirectory


@dataclass(frozen=True, kw_only=True)
class PretrainArguments(PretrainOptions):
    store: Positional[str]
    out: str


def pretrain(arguments: Sequence[str]) -> int:
    """`bothways pretrain STORE --out RUN`."""
    options = parse(
        "pretrain",
        PretrainArguments,
        arguments,
        "Train an encoder by masked LM and next sentence, or, with --objective causal, from left to right. "
        "Example: bothways pretrain store --size mini --out run",
    )
    result = pretraining.pretrain(options.store, options.out, options)
    if result.interrupted is not None:
        return _say_interrupted(result, options.out)
    if not speaks():
        return 0
    run = RunDirectory(options.out)
    report = pretraining_report(run.metrics(), f"Pretraining of {options.out}")
    add_provenance(report, read_json(run.model_path / "bothways.json")["provenance"])
    _write_report(run, report)
    print(f"{options.out}: model in {run.model_path}")
    ask = 'generate {} "the beginning of a text"' if options.objective == "causal" else 'fill {} "a [MASK] in a text"'
    print(f"next: bothways {ask.format(shlex.quote(options.out))}")
    return 0


@dataclass(frozen=True, kw_only=True)
class FinetuneArguments(finetuning.FinetuneOptions):
    model: str
    train: str
    eval: str | None = None
    out: str


FINETUNE = (
    f"Train a model for a task: {', '.join(TASKS)}. `bothways finetune TASK --help` has the task's own options. "
    "Example: bothways finetune classify --model run --train train.csv --eval test.csv --out tickets"
)


def finetune(arguments: Sequence[str]) -> int:
    """`bothways finetune TASK --model M --train F --eval F --out RUN`."""
    task, *rest = arguments or [""]
    if task in ("-h", "--help"):
        parse("finetune", FinetuneArguments, arguments, FINETUNE, "TASK")
    if not task or task.startswith("-"):
        raise UserError(f"finetune: begin with the task, one of {', '.join(TASKS)} (bothways finetune classify …)")
    own = find_task(task).Options
    kind: type[Any] = dataclass(frozen=True, kw_only=True)(type("FinetuneArguments", (FinetuneArguments, own), {}))
    options = parse("finetune", kind, rest, FINETUNE, task)
    task_options = {field.name: getattr(options, field.name) for field in fields(own)}
    result = finetuning.finetune(task, options.model, options.train, options.eval, options.out, options, **task_options)
    if result.training.interrupted is not None:
        return _say_interrupted(result.training, options.out)
    run = RunDirectory(options.out)
    if result.evaluation:
        from bothways.verbs.measuring import figure_lines

        print("\n".join(figure_lines(result.evaluation.metrics)))
        print(f"{run.path / 'predictions.csv'}: what was predicted of each row")
        report = finetuning_report(run.metrics(), result.evaluation, f"Fine-tuning of {options.out}")
        add_provenance(report, read_json(run.model_path / "bothways.json")["provenance"])
        _write_report(run, report)
    print(f"{options.out}: model in {run.model_path}")
    print(f"next: bothways {NEXT.get(task, PREDICT).format(out=shlex.quote(options.out))}")
    return 0


PREDICT = "predict {out} table.jsonl"  # what any task's model can do
NEXT = {
    "classify": 'classify {out} "a text of yours"',
    "answer": 'answer {out} "a question" "a text that may hold the answer"',
    "tag": 'tag {out} "a text of yours"',
    "instruct": 'chat {out} "something to say"',
    "similar": 'similar {out} "a text of yours" --in lines.txt',
}


def _write_report(run: RunDirectory, report: Report) -> None:
    path = run.path / "report.html"
    report.write(path)
    print(f"{path}: figures" + (" and curves" if can_report() else "; curves need pip install 'bothways[report]'"))


def _say_interrupted(result: TrainResult, out: str) -> int:
    assert result.interrupted is not None
    if not speaks():
        return 128 + result.interrupted
    print(f"{out}: stopped by {result.interrupted.name} after step {result.steps:,}, all of it saved; ", end="")
    print("the same command again goes on from there")
    return 128 + result.interrupted
