"""`bothways pretrain STORE --out RUN`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from tyro.conf import Positional

from bothways.files import read_json
from bothways.pages.report import add_provenance, pretraining_report
from bothways.train import pretrain as pretraining
from bothways.train.distributed import is_main_process
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.run import RunDirectory
from bothways.verbs.parse import parse
from bothways.verbs.run_output import say_interrupted, write_report


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
        return say_interrupted(result, options.out)
    if not is_main_process():
        return 0
    run = RunDirectory(options.out)
    report = pretraining_report(run.metrics(), f"Pretraining of {options.out}")
    add_provenance(report, read_json(run.model_path / "bothways.json")["provenance"])
    write_report(run, report)
    print(f"{options.out}: model in {run.model_path}")
    ask = 'generate {} "the beginning of a text"' if options.objective == "causal" else 'fill {} "a [MASK] in a text"'
    print(f"next: bothways {ask.format(shlex.quote(options.out))}")
    return 0
