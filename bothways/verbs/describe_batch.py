"""What `bothways info` says of batches and epochs of pretraining: of a run, or of a store and a recipe."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

from bothways.data.plan import PretrainingPlan
from bothways.data.store import TokenStore
from bothways.data.survey import batch_in_words, estimate_epoch
from bothways.errors import UserError
from bothways.files import read_json
from bothways.token_budget import UNLIMITED
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.pretrain_plan import make_plan, phases_of, steps_of
from bothways.train.run import is_pretraining_run
from bothways.verbs.recipes import read_recipe

MAX_SEQUENCES_SHOWN = 8  # of a batch, each of which takes several lines of a terminal


def print_batch(path: Path, step: int, recipe: str | None, every_sequence: bool) -> None:
    """Print the batch of a step, counted from 1, of a run or of a store: its first sequences, or every one.

    Raises UserError for a step that the run does not have, and for what is neither.
    """
    if step < 1:
        raise UserError(f"--batch {step}: expected a step, counted from 1")
    store, options = _store_and_options(path, recipe)
    if step > steps_of(options):
        raise UserError(f"--batch {step}: the run has {steps_of(options):,} steps")
    plan = make_plan(store, options)
    for state in sorted(path.glob("checkpoints/step-*/state.json")):  # so as not to walk there from the first step
        saved = read_json(state)
        if "cursor" in saved and saved["step"] <= step - 1:
            plan.restore(saved["cursor"])
    batch = plan.micro_batches(step - 1, 0, 1, UNLIMITED)[0]
    print(f"step {step:,}: {batch.num_sequences} sequences, {batch.num_tokens:,} tokens")
    shown = None if every_sequence else MAX_SEQUENCES_SHOWN
    for line in itertools.islice(batch_in_words(batch, store.tokenizer()), shown):
        print(line)
    if shown is not None and batch.num_sequences > shown:
        print(f"… and {batch.num_sequences - shown} more sequences; --all shows them")


def _store_and_options(path: Path, recipe: str | None) -> tuple[TokenStore, PretrainOptions]:
    if is_pretraining_run(path):
        started = read_json(path / "run.json")
        given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in started["options"].items()}
        options = PretrainOptions(**given)
        return TokenStore(started["store"]), options
    if (path / "manifest.json").exists():
        return TokenStore(path), _recipe_options(recipe)
    raise UserError(f"{path}: --batch shows a batch of a pretraining run or of a store, and this is neither")


def _recipe_options(recipe: str | None) -> PretrainOptions:
    """The options of pretraining that a recipe has, or their defaults."""
    options = PretrainOptions(**read_recipe(recipe, "pretrain", PretrainOptions) if recipe else {})
    if options.steps is None and (options.hours, options.minutes) != (None, None):
        raise UserError(f"{recipe} gives a time, whose steps are measured where it is pretrained; look at that run")
    return options


def epoch_lines(store: TokenStore, recipe: str) -> list[str]:
    """What a recipe would see of the store, phase by phase."""
    try:
        options = _recipe_options(recipe)
    except UserError as error:
        return [f"recipe {error}"]
    lines = []
    for phase in phases_of(options):
        tokens_per_step = phase.tokens_per_step or options.tokens_per_step
        length = phase.sequence_length
        alone = dataclasses.replace(options, phases=(), sequence_length=length, tokens_per_step=tokens_per_step)
        try:
            plan = make_plan(store, alone)
            assert isinstance(plan, PretrainingPlan)
            epoch, steps = estimate_epoch(plan), phase.end - phase.first
        except UserError as error:
            return [f"recipe {recipe}: {error}"]
        seen = steps * tokens_per_step
        lines.append(
            f"recipe {recipe}: {steps:,} steps of {tokens_per_step:,} tokens at length {phase.sequence_length}: "
            f"{seen:,} tokens, {seen / epoch.tokens:,.2f} epochs of about {epoch.tokens:,} tokens in "
            f"{epoch.examples:,} sequences"
        )
    return lines
