"""`bothways pretrain STORE --out RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bothways.train.pretrain_options import PretrainOptions
from bothways.verbs.flags import parse
from bothways.verbs.options import Positional


@dataclass(frozen=True, kw_only=True)
class PretrainArguments(PretrainOptions):
    store: Positional[str]
    out: str
    overwrite: bool = False


def run_pretrain(arguments: Sequence[str]) -> int:
    """`bothways pretrain STORE --out RUN`."""
    options = parse(
        "pretrain",
        PretrainArguments,
        arguments,
        "Train an encoder by masked LM and next sentence, or, with --objective causal, from left to right. "
        "Example: bothways pretrain store --size mini --out run",
    )
    from bothways.pages.pretraining import pretraining_report  # torch takes seconds, and --help needs none
    from bothways.progress import is_main_process
    from bothways.tasks.objectives import find_pretraining
    from bothways.text.tokenizer import Tokenizer
    from bothways.text.tokenizer_backend import MASK
    from bothways.train import pretrain as pretraining
    from bothways.train.run import RunDirectory
    from bothways.verbs.run_output import provenance_of, say_finished, say_interrupted, write_report

    result = pretraining.pretrain(options.store, options.out, options, overwrite=options.overwrite)
    if result.interrupted is not None:
        return say_interrupted(result, options)
    if not is_main_process():
        return 0
    run = RunDirectory(options.out)
    write_report(run, pretraining_report(run.metrics(), f"{options.out}: pretrained", provenance_of(run)))
    mask = Tokenizer.load(run.model_path).roles.get("mask", MASK)
    say_finished(options.out, find_pretraining(options.objective).next_command, mask=mask)
    return 0
