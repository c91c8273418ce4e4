"""`bothways compare classify`: what came before encoders, trained beside one. `compare lm` is next door."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from bothways.baselines.results import ClassifierResult
from bothways.comparison import compare
from bothways.files import to_json
from bothways.tasks.classify_options import ClassifyOptions
from bothways.train.finetune_options import FinetuneOptions
from bothways.verbs.finetune import share_or_table
from bothways.verbs.flags import parse
from bothways.verbs.options import Positional
from bothways.verbs.printing import size_in_words, table_lines
from bothways.verbs.run_output import say_stopped


@dataclass(frozen=True, kw_only=True)
class CompareArguments(FinetuneOptions, ClassifyOptions):
    """The options of `finetune classify`; out keeps the fine-tuned encoder."""

    what: Positional[Literal["classify"]]
    model: str
    train: str
    eval: str
    out: str
    overwrite: bool = False
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
        "word2vec and an encoder on the same rows. Example: bothways compare classify --model run --train train.csv "
        "--eval test.csv --out tickets",
    )
    own = {field.name: getattr(options, field.name) for field in fields(ClassifyOptions)}
    tables: tuple[Any, Any] = options.train, share_or_table(options.eval)
    found = compare("classify", options.model, *tables, options.out, options, overwrite=options.overwrite, **own)
    if found.interrupted is not None:
        return say_stopped(options, found.interrupted)
    if options.json:
        print("\n".join(to_json(asdict(result)) for result in found.results))
    else:
        print("\n".join(classifier_lines(found.results, found.held_out)))
        print(f"{options.out}: the fine-tuned encoder")
    return 0


def classifier_lines(results: Sequence[ClassifierResult], rows: int) -> list[str]:
    """The comparison as a table for the terminal."""
    heads = [f"on {rows:,} held-out rows", "accuracy", "macro F1", "training", "size", "one text"]
    lines = []
    for result in results:
        figures = f"{result.accuracy:.1%}", f"{result.macro_f1:.3f}", f"{result.train_seconds:,.1f} s"
        lines.append([result.name, *figures, size_in_words(result.size_bytes), f"{result.latency_ms:.1f} ms"])
    return table_lines(heads, lines, least=["size", "training"])
