"""`bothways finetune TASK --model M --train F --out RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from bothways.errors import UserError, as_shown
from bothways.pages.finetuning import finetuning_report
from bothways.progress import is_main_process
from bothways.tasks import TASKS, find_task
from bothways.train import finetune as finetuning
from bothways.train.finetune_options import FinetuneOptions
from bothways.train.run import RunDirectory
from bothways.verbs.flags import joined_options, parse
from bothways.verbs.model_argument import named_model
from bothways.verbs.printing import figure_lines
from bothways.verbs.run_output import provenance_of, say_finished, say_interrupted, write_report


@dataclass(frozen=True, kw_only=True)
class FinetuneArguments(FinetuneOptions):
    """eval: labelled rows to measure on, or the share of the training rows that is held out for it, 0.2 say; what is
    nearly the same stays on one side, and each label has its share. model: a run, a Hugging Face directory, a shipped
    model, or a hub id; by default the shipped encoder."""

    model: str | None = None
    train: str
    eval: str | None = None
    out: str
    overwrite: bool = False


def _best_line(result: finetuning.FinetuneResult) -> str:
    """Which epoch's model is kept, and by which figure."""
    assert result.evaluation is not None
    figure = next(iter(result.evaluation.metrics)).replace("_", " ")
    score = f"{figure} {result.evaluation.score:.3f}"
    return f"best: epoch {result.best_epoch:,} of {result.epochs:,} ({score}); its model is kept"


FINETUNE_HELP = (
    f"Train a model for a task: {', '.join(TASKS)}. `bothways finetune TASK --help` has the task's own options. "
    "Example: bothways finetune classify --model run --train train.csv --eval test.csv --out tickets"
)


def share_or_table(given: str) -> str | float:
    """`--eval`: a number is a share of the training rows, anything else a table."""
    try:
        return float(given)
    except ValueError:
        return given


def run_finetune(arguments: Sequence[str]) -> int:
    """`bothways finetune TASK --model M --train F --eval F --out RUN`."""
    task, *rest = arguments or [""]
    if task in ("-h", "--help"):
        parse("finetune", FinetuneArguments, arguments, FINETUNE_HELP, "TASK")
    if not task or task.startswith("-"):
        raise UserError(f"finetune: begin with the task, one of {', '.join(TASKS)} (bothways finetune classify …)")
    own = find_task(task).Options
    options = parse("finetune", joined_options("FinetuneArguments", FinetuneArguments, own), rest, FINETUNE_HELP, task)
    task_options = {field.name: getattr(options, field.name) for field in fields(own)}
    tables = options.train, None if options.eval is None else share_or_table(options.eval)
    result = finetuning.finetune(
        task,
        named_model("finetune", options.model),
        *tables,
        options.out,
        options,
        overwrite=options.overwrite,
        **task_options,
    )
    if result.training.interrupted is not None:
        return say_interrupted(result.training, options)
    if not is_main_process():
        return 0
    if result.evaluation:
        run = RunDirectory(options.out)
        print("\n".join(figure_lines(result.evaluation.metrics)))
        print(_best_line(result))
        print(f"{as_shown(run.path / 'predictions.csv')}: what was predicted of each row")
        title = f"{options.out}: fine-tuned for the task {task}"
        write_report(run, finetuning_report(run.metrics(), result.evaluation, title, provenance_of(run)))
    command = find_task(task).next_command
    given = ["--format", options.format] if options.format and command.startswith("predict ") else []
    say_finished(options.out, command, [options.eval or options.train, *given])
    return 0
