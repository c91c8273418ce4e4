"""`bothways compare classify`: what came before BERT, trained beside it on the same rows. `compare lm` is next door."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from bothways.baselines.results import ClassifierResult, TrainingCost
from bothways.data.tables import Row
from bothways.errors import UserError
from bothways.files import to_json
from bothways.predictor import load
from bothways.tasks.classify import ClassifyOptions, ClassifyTask
from bothways.train.finetune import FinetuneOptions, finetune, read_rows_to_learn
from bothways.verbs.finetune import share_or_table
from bothways.verbs.flags import parse
from bothways.verbs.printing import say
from bothways.verbs.run_output import say_stopped


@dataclass(frozen=True, kw_only=True)
class CompareArguments(FinetuneOptions, ClassifyOptions):
    """The options of `finetune classify`; out keeps the fine-tuned BERT."""

    what: Positional[Literal["classify"]]
    model: str
    train: str
    eval: str
    out: str
    json: bool = False


def run_compare(arguments: Sequence[str]) -> int:
    """`bothways compare classify --model M --train F --eval F --out RUN`, `bothways compare lm STORE --out RUN`."""
    if arguments and arguments[0] == "lm":
        from bothways.verbs.compare_lm import run_compare_lm

        return run_compare_lm(arguments[1:])
    options = parse(
        "compare",
        CompareArguments,
        arguments,
        "Classifiers (`bothways compare lm --help` is about language models): train a majority vote, a perceptron, "
        "word2vec and BERT on the same rows. Example: bothways compare classify --model run --train train.csv "
        "--eval test.csv --out tickets",
    )
    if options.problem_type != "single_label_classification":
        raise UserError(f"--problem-type {options.problem_type}: one label a row is compared")
    from bothways.baselines.classify import compare_classifiers

    task = ClassifyTask(
        ClassifyOptions(**{field.name: getattr(options, field.name) for field in fields(ClassifyOptions)})
    )
    measured_on = share_or_table(options.eval)
    train, held_out = read_rows_to_learn(options.train, measured_on, task, options, say)
    task, eval_rows = cast("ClassifyTask", train.task), held_out.rows
    of_train, of_held_out = _columns(task, train.rows), _columns(task, eval_rows)
    results: list[ClassifierResult] = list(compare_classifiers(*of_train, *of_held_out, task.labels))
    own = asdict(task.options)
    tuned = finetune("classify", options.model, options.train, measured_on, options.out, options, **own)
    if tuned.training.interrupted is not None:
        return say_stopped(options.out, tuned.training.interrupted)
    results.append(_bert(options, task, eval_rows, tuned.training.seconds))
    if options.json:
        print("\n".join(to_json(asdict(result)) for result in results))
    else:
        print("\n".join(classifier_lines(results, len(eval_rows))))
        print(f"{options.out}: the fine-tuned BERT")
    return 0


def _columns(task: ClassifyTask, rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """The texts of the rows, a pair joined by a line break, and their gold labels."""
    texts = [text if isinstance(text, str) else "\n".join(text) for text in map(task.texts, rows)]
    return texts, [task.gold(row) for row in rows]


def _bert(options: CompareArguments, task: ClassifyTask, rows: Sequence[Row], seconds: float) -> ClassifierResult:
    from bothways.baselines.classify import measure_classifier

    model = load(options.out, options.device)
    texts: list[Any] = [task.texts(row) for row in rows]
    size = (Path(options.out) / "model" / "model.safetensors").stat().st_size

    def predict(texts: Sequence[Any]) -> list[str]:
        return [classification.label for classification in model.classify(texts)]

    gold = [task.gold(row) for row in rows]
    return measure_classifier("BERT, fine-tuned", predict, texts, gold, task.labels, TrainingCost(seconds, size))


def classifier_lines(results: Sequence[ClassifierResult], rows: int) -> list[str]:
    """The comparison as a table for the terminal."""
    console = Console(width=120)
    table = Table(f"on {rows:,} held-out rows", "accuracy", "macro F1", "training", "size", "one text")
    for result in results:
        size = f"{result.size_bytes / 1e6:,.1f} MB" if result.size_bytes > 1e5 else f"{result.size_bytes / 1e3:,.1f} kB"
        figures = f"{result.accuracy:.1%}", f"{result.macro_f1:.3f}", f"{result.train_seconds:,.1f} s", size
        table.add_row(result.name, *figures, f"{result.latency_ms:.1f} ms")
    with console.capture() as capture:
        console.print(table)
    return capture.get().splitlines()
