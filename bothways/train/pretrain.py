"""Pretraining: store + objective + model → a run's directory with a model that fills masks or continues a text."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from bothways.checkpoint.hugging_face import (
    Checkpoint,
    new_model,
    save_checkpoint,
    weights_fingerprint,
)
from bothways.data.lengths import few_held_out
from bothways.data.phases import PhasedPlan
from bothways.data.plan import PretrainingPlan
from bothways.data.store import TokenStore
from bothways.data.unknown_tokens import unknown_in_store
from bothways.errors import as_shown, option
from bothways.hardware import choose_device
from bothways.inference.loaded import source_of
from bothways.option_checks import options_from, require_path, require_seed, require_type
from bothways.outputs import command_words, require_apart
from bothways.progress import Progress
from bothways.tasks.base import Objective
from bothways.train.budget import RunPlace, settle
from bothways.train.distributed import World, full_tensor, join_world
from bothways.train.held_out import evaluate_held_out, perplexity_of
from bothways.train.helper_models import take_helpers
from bothways.train.keywords import PretrainKeywords
from bothways.train.loop import TrainResult, say_if_not_compiled, train
from bothways.train.options import TrainOptions
from bothways.train.pretrain_options import PretrainOptions, options_json
from bothways.train.pretrain_plan import (
    build_objective,
    epochs_of,
    loop_options,
    make_plan,
    make_validation_plan,
    validation_tokens,
)
from bothways.train.provenance import in_effect, of_text, of_this_machine
from bothways.train.run import RunDirectory
from bothways.train.samples import samples
from bothways.train.start_line import pretraining_start
from bothways.train.starting_point import starting_point
from bothways.train.step import Stepper
from bothways.train.teaching import with_teacher
from bothways.train.tensorboard import require_tensorboard

# Options on which it depends in which order a store is read.
ORDER = ("seed", "objective", "sequence_length", "phases", "short")


def pretrain(
    store: str | Path | TokenStore,
    out: str | Path,
    options: PretrainOptions | Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
    quiet: bool = False,
    progress: Progress | None = None,
    **keywords: Unpack[PretrainKeywords],
) -> TrainResult:
    """Pretrain a model on a token store; the same call again resumes a run that was stopped. Under `torchrun` all
    processes make the call, and work on the same run.

    With other `steps` a run goes on too, finished or not: from there on as a run of that many steps does. With `hours`
    or `minutes` in their place the steps are those that end with that time on this machine (`train.budget`).
    store: as `prepare` gives it, or its directory. out: the run's directory. options: `PretrainOptions`, or a dict
    of them; as keywords they win (`size="tiny"`, `steps=300`, …), and there `model` may be what `bw.load` gives.
    overwrite: begin anew where `out` holds another run. quiet: nothing on the screen; what would stand there goes to
    the logger `bothways`. progress: what shows it, in place of the line on standard error.

    Writes `out/metrics.jsonl`, `out/checkpoints/`, and, when it is done, `out/model/`.
    Raises UserError for an option of another type or out of range, a time that is too short, a sequence longer than
    the position table, a model of another vocabulary, and another run's directory.
    """
    began = time.monotonic()
    require_type("quiet", quiet, bool)
    require_type("overwrite", overwrite, bool)
    require_path(out=out)
    given: dict[str, Any] = {**(options if isinstance(options, Mapping) else {}), **keywords}
    if given.get("model") is not None:
        given["model"] = str(source_of(given["model"]))
    if given.get("teacher") is not None:
        given["teacher"] = str(source_of(given["teacher"]))
    settings = options_from(PretrainOptions, "pretrain", options, given)
    require_seed(settings.seed)
    if not isinstance(store, TokenStore):
        require_path(store=store)
        store = TokenStore(store)
    if overwrite:
        require_apart(out, [store.directory, settings.model, settings.teacher])
    with join_world(choose_device(settings.device)) as world:
        progress = progress or Progress("pretrain", shown=world.main and not quiet)
        world.require_same(store=store.fingerprint)
        place = RunPlace(store, RunDirectory(out, world, overwrite=overwrite), world, began)
        return _pretrain(place, settle(settings, place, progress), _command_of(place, settings), progress)


def _pretrain(place: RunPlace, options: PretrainOptions, command: str, progress: Progress) -> TrainResult:
    """options: settled. command: as it was given."""
    store, run, world = place.store, place.run, place.world
    progress.wait(f"{progress.title}  opening the store, making the model …")
    taught = with_teacher(build_objective(options), store, options, progress.say)
    objective = taught.objective
    checkpoint = starting_point(store, objective, options)
    model = checkpoint.model
    if options.model is not None and checkpoint.report is not None:
        helpers = [*take_helpers(checkpoint, options.model)]
        kept = f" Kept of its layers, counted from 1: {options.keep_layers}." if options.keep_layers else ""
        for line in (f"{options.model}: {checkpoint.report.sentence()}{kept}", *helpers):
            progress.say(line)
    if (unknown := unknown_in_store(store, str(store.directory))) is not None:
        progress.say(unknown)
    plan = make_plan(store, options)
    start = {"model": weights_fingerprint(model), "dropout": options.dropout, **taught.identity}
    plan.identity |= start

    def identity_at(steps: int) -> dict[str, Any]:
        if steps == options.steps:
            return plan.identity
        return {**make_plan(store, replace(options, steps=steps)).identity, **start}

    if plan.documents == 1 and "nsp_loss" in objective.losses:
        progress.say(
            f"{store.directory}: one document only, so every pair is a true next sentence and the next-sentence head "
            f"learns nothing; {option('objective', 'mlm')} leaves it out"
        )
    settings = loop_options(options, checkpoint.config)
    if options.tensorboard:
        require_tensorboard()
    stepper = Stepper(model, objective, plan, settings, world)
    made = provenance(store, plan, options, settings, world)
    if (reread := _reread(checkpoint.metadata.get("provenance", {}), made)) is not None:
        progress.say(f"{options.model}: {reread}")
    checkpoint.metadata = {"provenance": made}
    run.begin(_described(store, options, command), checkpoint)
    validation = make_validation_plan(store, options)
    if validation is None:
        progress.say(f"{store.directory}: no held-out documents to speak of, so nothing is evaluated")
    elif few := few_held_out(validation.documents):
        progress.say(f"{store.directory}: {few}")

    read = validation_tokens(options, world.agree(run.described().get("options", {})))

    def evaluate(step: int) -> dict[str, Any]:
        if validation is None:
            return {}
        tokens = read.at_end if step == settings.steps else read.during
        figures = evaluate_held_out(model, objective, validation, replace(options, validation_tokens=tokens), world)
        if "lm_loss" in figures:
            figures = {**figures, "perplexity": perplexity_of(figures["lm_loss"])}
        return {**figures, **samples(model, validation)}

    say_if_not_compiled(stepper.device, progress)
    progress.start_line = pretraining_start(stepper, plan, options)
    result = train(stepper, run, progress, evaluate, identity_at=identity_at)
    if result.interrupted is None:
        checkpoint.metadata = {"provenance": {**made, "seconds": round(result.seconds, 1)}}
        _finish(checkpoint, objective, run, world)
    return result


def _command_of(place: RunPlace, given: PretrainOptions) -> str:
    """The command line of these options, as the user gave them."""
    words = ["bothways", "pretrain", as_shown(place.store.directory)]
    options = {"out": as_shown(place.run.path), **options_json(given)}
    return shlex.join(command_words(words, options, options_json(PretrainOptions())))


def _described(store: TokenStore, options: PretrainOptions, command: str) -> dict[str, Any]:
    """What the run is started with, as run.json has it."""
    directory = as_shown(store.directory.resolve())
    return {"command": command, "store": directory, "inputs": {"store": directory}, "options": options_json(options)}


def provenance(
    store: TokenStore,
    plan: PretrainingPlan | PhasedPlan,
    options: PretrainOptions,
    settings: TrainOptions,
    world: World,
) -> dict[str, Any]:
    """Where a model comes from: software, machine, date, text, and the options as they were in effect."""
    return {
        **of_this_machine(choose_device(settings.device), world.size),
        **of_text(store),
        "epochs": round(epochs_of(plan, options), 2),
        "options": in_effect(options_json(options), settings),
    }


def _reread(earlier: Mapping[str, Any], made: Mapping[str, Any]) -> str | None:
    """What is to be said where a model has read the beginning of what it is to read now; None where it has not.

    earlier, made: `provenance` of the run that it comes from, and of this one.
    """

    def order(of: Mapping[str, Any]) -> list[Any]:
        options = of.get("options", {})
        return [of.get("store"), *(options.get(name) for name in ORDER)]

    if order(earlier) != order(made) or earlier.get("epochs", 1) >= 1:
        return None
    return f"has read the beginning of this text already, in this order; another {option('seed')} gives another order"


def _finish(checkpoint: Checkpoint, objective: Objective, run: RunDirectory, world: World) -> None:
    """Write the model, put together again where it was sharded."""
    parameters = {name: full_tensor(tensor.detach()) for name, tensor in checkpoint.model.named_parameters()}
    if world.main:
        checkpoint.model = new_model(checkpoint.config, objective.head, seed=0)
        for name, parameter in checkpoint.model.named_parameters():
            parameter.data.copy_(parameters[name])
        for name, model in checkpoint.model.head.saved_models(checkpoint.model).items():
            save_checkpoint(Checkpoint(model, checkpoint.tokenizer, checkpoint.metadata), run.path / name)
        run.publish()
    world.wait()
