"""`bothways compare lm`: what came before the transformer, trained beside it on the same text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from bothways.baselines.results import LanguageModelResult
from bothways.comparison import compare
from bothways.files import to_json
from bothways.train.pretrain_options import ObjectiveName, PretrainOptions
from bothways.verbs.flags import parse
from bothways.verbs.run_output import say_stopped


@dataclass(frozen=True, kw_only=True)
class CompareLanguageArguments(PretrainOptions):
    """The options of `pretrain`, for the transformer; out keeps it.

    order: of the n-grams. prompt: what the samples go on from, by default the beginning of a held-out document.
    """

    store: Positional[str]
    out: str
    overwrite: bool = False
    objective: ObjectiveName = "causal"
    order: int = 3
    prompt: str | None = None
    json: bool = False


def run_compare_lm(arguments: Sequence[str]) -> int:
    """`bothways compare lm STORE --out RUN`."""
    options = parse(
        "compare",
        CompareLanguageArguments,
        arguments,
        "Train n-grams, a feed-forward network and a transformer on the same text. Example: bothways compare lm store "
        "--out run",
        "lm",
        table="pretrain",
    )
    found = compare(
        "lm",
        options.store,
        options.out,
        options,
        order=options.order,
        prompt=options.prompt,
        overwrite=options.overwrite,
    )
    if found.interrupted is not None:
        return say_stopped(options, found.interrupted)
    if options.json:
        print("\n".join(to_json(asdict(result), ensure_ascii=False) for result in found.results))
    else:
        print("\n".join(language_model_lines(found.results, found.held_out, found.prompt)))
        print(f"{options.out}: the transformer")
    return 0


def language_model_lines(results: Sequence[LanguageModelResult], tokens: int, prompt: str) -> list[str]:
    """The comparison as a table for the terminal, and a sample of each model."""
    console = Console(width=120)
    table = Table(f"on {tokens:,} held-out tokens", "perplexity", "training", "size", "tokens/s", "next words")
    for result in results:
        size = f"{result.size_bytes / 1e6:,.1f} MB"
        perplexity = "—" if result.perplexity is None else f"{result.perplexity:,.1f}"
        figures = perplexity, f"{result.train_seconds:,.1f} s", size, f"{result.tokens_per_second:,.0f}"
        table.add_row(escape(result.name), *figures, escape(", ".join(result.suggestions)))
    with console.capture() as capture:
        console.print(table)
        for result in results:
            console.print(f"{result.name}: {prompt} … {result.sample}", markup=False, highlight=False)
    return capture.get().splitlines()
