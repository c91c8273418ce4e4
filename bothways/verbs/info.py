"""`bothways info PATH`: what a store, a model, a run or a vocabulary is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from bothways.data.plan import PretrainingPlan
from bothways.data.store import TokenStore
from bothways.data.survey import batch_in_words, estimate_epoch, few_held_out, length_histogram
from bothways.errors import UserError
from bothways.files import read_json, to_json
from bothways.text.corpus import CorpusReport
from bothways.text.tokenizer import Tokenizer
from bothways.token_budget import UNLIMITED
from bothways.train.pretrain_options import PretrainOptions, make_plan, phases_of
from bothways.train.run import RunDirectory, is_pretraining_run
from bothways.verbs.flags import parse
from bothways.verbs.recipes import read_recipe, split_recipe


@dataclass(frozen=True)
class InfoArguments:
    """batch: show the batch of this step in words, of a run or, with a recipe, of a store. Steps count from 1."""

    path: Positional[str]
    batch: int | None = None
    json: bool = False


def run_info(arguments: Sequence[str]) -> None:
    """`bothways info PATH [--recipe R] [--batch K]`."""
    recipe, rest = split_recipe(arguments)
    options = parse(
        "info",
        InfoArguments,
        rest,
        "Say what a store, a model, a run or a vocabulary is; of a store also what a --recipe would see of it; with "
        "--batch K the batch of step K in words. Example: bothways info store --recipe bert-mini",
    )
    path = Path(options.path)
    if options.batch is not None:
        _print_batch(path, options.batch, recipe)
    elif (path / "manifest.json").exists() or (path / "progress.json").exists():
        store = TokenStore(path)
        if options.json:
            print(to_json({**store.manifest, "lengths": length_histogram(store).rows}))
        else:
            lines = [*store_lines(store), *_remarks(store), *length_histogram(store).lines()]
            print("\n".join([*lines, *_epoch_lines(store, recipe)]))
    elif (path / "config.json").exists() or (path / "model" / "config.json").exists():
        _print_facts(_model_facts(options.path), options.json)
    elif (path / "metrics.jsonl").exists():
        last = RunDirectory(path).metrics()[-1:]
        _print_facts({"run": options.path, "finished": False, **(last[0] if last else {})}, options.json)
    elif (path / "vocab.txt").exists() or (path / "tokenizer.json").exists():
        tokenizer = Tokenizer.load(path)
        facts = {"vocabulary": options.path, "pieces": tokenizer.vocab_size, "uncased": tokenizer.lowercase}
        _print_facts({**facts, "fingerprint": tokenizer.fingerprint}, options.json)
    else:
        raise UserError(
            f"{path}: not a store, a model, a run or a vocabulary" if path.exists() else f"{path}: no such path"
        )


def _recipe_options(recipe: str | None) -> PretrainOptions:
    """The options of pretraining that a recipe has, or their defaults."""
    return PretrainOptions(**read_recipe(recipe, "pretrain", PretrainOptions) if recipe else {})


def _epoch_lines(store: TokenStore, recipe: str | None) -> list[str]:
    """What a recipe, or pretrain's own defaults, would see of the store, phase by phase."""
    options = _recipe_options(recipe)
    name = f"recipe {recipe}" if recipe else "bothways pretrain without a recipe"
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
            return [f"{name}: {error}"]
        seen = steps * tokens_per_step
        lines.append(
            f"{name}: {steps:,} steps of {tokens_per_step:,} tokens at length {phase.sequence_length}: "
            f"{seen:,} tokens, {seen / epoch.tokens:,.2f} epochs of about {epoch.tokens:,} tokens in "
            f"{epoch.examples:,} sequences"
        )
    return lines


def _print_batch(path: Path, step: int, recipe: str | None) -> None:
    """The batch of a step, counted from 1, of a run or of a store."""
    if step < 1:
        raise UserError(f"--batch {step}: expected a step, counted from 1")
    if is_pretraining_run(path):
        started = read_json(path / "run.json")
        store = TokenStore(started["store"])
        options = PretrainOptions(**{**started["options"], "phases": tuple(started["options"].get("phases", ()))})
    elif (path / "manifest.json").exists():
        store, options = TokenStore(path), _recipe_options(recipe)
    else:
        raise UserError(f"{path}: --batch shows a batch of a pretraining run or of a store, and this is neither")
    if step > options.steps:
        raise UserError(f"--batch {step}: the run has {options.steps:,} steps")
    plan = make_plan(store, options)
    for state in sorted(path.glob("checkpoints/step-*/state.json")):  # so as not to walk there from the first step
        saved = read_json(state)
        if "cursor" in saved and saved["step"] <= step - 1:
            plan.restore(saved["cursor"])
    batch = plan.micro_batches(step - 1, 0, 1, UNLIMITED)[0]
    print(f"step {step:,}: {batch.num_sequences} sequences, {batch.num_tokens:,} tokens")
    for line in batch_in_words(batch, store.tokenizer()):
        print(line)


def _print_facts(facts: Mapping[str, Any], as_json: bool) -> None:
    print(to_json(facts) if as_json else "\n".join(f"{name}: {value}" for name, value in facts.items()))


def store_lines(store: TokenStore) -> list[str]:
    """A store in words: its size, its held-out part."""
    manifest = store.manifest
    held_out = store.split("validation")
    unknown = manifest["unknown_tokens"] / max(1, manifest["tokens"])
    lines = [
        f"{store.directory}: {manifest['documents']:,} documents, {manifest['sentences']:,} sentences, "
        f"{manifest['tokens']:,} tokens ({unknown:.3%} unknown), fingerprint {store.fingerprint}",
        f"held out: {held_out.documents:,} documents, {held_out.tokens:,} tokens",
    ]
    if few := few_held_out(held_out.documents):
        lines.append(few)
    if manifest["documents_without_words"]:
        lines.append(f"without words: {manifest['documents_without_words']:,} documents")
    return lines


def _remarks(store: TokenStore) -> list[str]:
    """What was left out of a store's text, and why."""
    return CorpusReport.from_dict(store.manifest["corpus"]).lines()


def _model_facts(path: str) -> dict[str, Any]:
    """A model's config, size, labels and provenance, by name."""
    from bothways.predictor import load

    model = load(path)
    assert model.report is not None
    facts: dict[str, Any] = {
        "model": path,
        "head": type(model.model.head).__name__,
        "parameters": sum(parameter.numel() for parameter in model.model.parameters()),
        **model.config.to_dict(),
        "tokenizer": model.tokenizer.fingerprint,
        "weights": model.report.sentence(),
    }
    if model.labels:
        facts["labels"] = model.labels
    if "provenance" in model.checkpoint.metadata:
        facts["provenance"] = model.checkpoint.metadata["provenance"]
    return facts
