"""`bothways compare lm`: what came before the transformer, trained beside it on the same text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from bothways.baselines.results import SAMPLE_TOKENS, LanguageModelResult, TrainingCost
from bothways.data.store import TokenStore
from bothways.errors import UserError
from bothways.files import to_json
from bothways.predictor import Predictor, load
from bothways.text.lines import is_unicode
from bothways.text.tokenizer import Tokenizer
from bothways.token_budget import UNLIMITED
from bothways.train.pretrain import evaluate_store, pretrain
from bothways.train.pretrain_options import ObjectiveName, PretrainOptions
from bothways.verbs.flags import parse
from bothways.verbs.printing import say
from bothways.verbs.run_output import say_stopped

PROMPT_TOKENS = 4  # of a held-out document, which the samples go on from


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
    if options.objective != "causal" or options.order < 2:
        raise UserError(
            f"compare lm: --objective {options.objective} --order {options.order}: expected causal, 2 or more"
        )
    from bothways.baselines.language import compare_language_models, read_documents_of

    store = TokenStore(options.store)
    tokenizer = store.tokenizer()
    train, held_out = (read_documents_of(store, tokenizer, split) for split in ("train", "validation"))
    if not held_out:
        raise UserError(
            f"{options.store}: no held-out documents to measure on; prepare more of them (--validation 0.1, or of one "
            ".txt --documents blank-line)"
        )
    prompt = _prompt(options, tokenizer, held_out[0])
    # before the others, as it is what --out may refuse
    trained = pretrain(options.store, options.out, options, overwrite=options.overwrite)
    if trained.interrupted is not None:
        return say_stopped(options, trained.interrupted)
    results: list[LanguageModelResult] = list(
        compare_language_models(train, held_out, tokenizer, prompt, options.order, say)
    )
    results.append(_transformer(load(options.out, options.device), store, options, prompt, trained.seconds))
    if options.json:
        print("\n".join(to_json(asdict(result), ensure_ascii=False) for result in results))
    else:
        words = tokenizer.decode([tokenizer.id(piece) or 0 for piece in prompt])
        print("\n".join(language_model_lines(results, sum(map(len, held_out)), words)))
        print(f"{options.out}: the transformer")
    return 0


def _prompt(options: CompareLanguageArguments, tokenizer: Tokenizer, document: list[str]) -> list[str]:
    """What the samples go on from, as pieces."""
    if options.prompt is None:
        return document[:-1][:PROMPT_TOKENS]  # without the [SEP] that ends it
    if not is_unicode(options.prompt):
        raise UserError("--prompt: not a text")
    prompt = [tokenizer.token(id) for id in tokenizer.encode(options.prompt, special_tokens=False).input_ids]
    room = options.max_position_embeddings - SAMPLE_TOKENS - 1
    if not 0 < len(prompt) <= room:
        raise UserError(f"--prompt: {len(prompt)} tokens, expected 1 to {room}")
    return prompt


class _Transformer:
    """A causal model, asked as the baselines are."""

    def __init__(self, model: Predictor) -> None:
        self._model = model

    def _text(self, pieces: Sequence[str]) -> str:
        tokenizer = self._model.tokenizer
        return tokenizer.decode([tokenizer.id(piece) or 0 for piece in pieces])

    def next_words(self, text: list[str], number: int) -> list[str]:
        return [suggestion.word for suggestion in self._model.suggest(self._text(text), number)]

    def sample(self, text: list[str], number: int) -> list[str]:
        tokenizer = self._model.tokenizer
        made = self._model.generate(self._text(text), max_tokens=number)
        ids: np.ndarray = tokenizer.encode(str(made), special_tokens=False).input_ids
        return [tokenizer.token(id) for id in ids.tolist()]


def _transformer(
    model: Predictor, store: TokenStore, options: CompareLanguageArguments, prompt: list[str], seconds: float
) -> LanguageModelResult:
    from bothways.baselines.language import measure_language_model

    figures = evaluate_store(model.checkpoint, store, "validation", options.device, limit=UNLIMITED)
    size = (Path(options.out) / "model" / "model.safetensors").stat().st_size
    perplexity, asked = math.exp(figures["lm_loss"]), _Transformer(model)
    cost = TrainingCost(seconds, size)
    return measure_language_model("transformer", asked, perplexity, cost, model.tokenizer, prompt)


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
