"""`bothways pretrain` and `bothways finetune TASK`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tyro.conf import Positional

from bothways.files import read_json
from bothways.recipes import parse
from bothways.tasks import TASKS
from bothways.train import finetune as finetuning
from bothways.train import pretrain as pretraining
from bothways.train.assembly import PretrainOptions
from bothways.train.distributed import speaks
from bothways.train.loop import TrainResult
from bothways.train.report import Report, add_provenance, can_report, classification_report, pretraining_report
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
        "Train an encoder by masked LM and next sentence. Example: bothways pretrain store --size mini --out run",
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
    print(f'next: bothways fill {options.out} "a sentence with a [MASK] in it"')
    return 0


@dataclass(frozen=True, kw_only=True)
class FinetuneArguments(finetuning.FinetuneOptions):
    task: Positional[str]
    model: str
    train: str
    eval: str | None = None
    out: str


def finetune(arguments: Sequence[str]) -> int:
    """`bothways finetune TASK --model M --train F --eval F --out RUN`."""
    options = parse(
        "finetune",
        FinetuneArguments,
        arguments,
        f"Train a model for a task ({', '.join(TASKS)}). "
        "Example: bothways finetune classify --model run --train train.csv --eval test.csv --out tickets",
    )
    result = finetuning.finetune(options.task, options.model, options.train, options.eval, options.out, options)
    if result.training.interrupted is not None:
        return _say_interrupted(result.training, options.out)
    run = RunDirectory(options.out)
    if result.metrics:
        from bothways.verbs.asking import classification_lines

        print("\n".join(classification_lines(result.metrics)))
        _write_report(run, classification_report(run.metrics(), result.metrics, f"Fine-tuning of {options.out}"))
    print(f"{options.out}: model in {run.model_path}")
    print(f'next: bothways {options.task} {options.out} "a text of yours"')
    return 0


def _write_report(run: RunDirectory, report: Report) -> None:
    path = run.path / "report.html"
    if can_report():
        report.write(path)
        print(f"{path}: figures and curves")
    else:
        print(f"no {path}: its curves need matplotlib, pip install 'bothways[report]'")


def _say_interrupted(result: TrainResult, out: str) -> int:
    assert result.interrupted is not None
    if not speaks():
        return 128 + result.interrupted
    print(f"{out}: stopped by {result.interrupted.name} after step {result.steps:,}, all of it saved; ", end="")
    print("the same command again goes on from there")
    return 128 + result.interrupted
