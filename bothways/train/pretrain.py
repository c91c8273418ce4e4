"""Pretraining: store + objective + model → a run's directory with a model that fills masks or continues a text."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from bothways.checkpoint.hugging_face import (
    Checkpoint,
    load_checkpoint,
    new_model,
    save_checkpoint,
    weights_fingerprint,
)
from bothways.data.lengths import few_held_out
from bothways.data.phases import PhasedPlan
from bothways.data.plan import PretrainingPlan
from bothways.data.store import SplitName, TokenStore
from bothways.data.unknown_tokens import unknown_in_store
from bothways.errors import UserError, option
from bothways.hardware import choose_device, micro_batch_tokens
from bothways.inference.loaded import source_of
from bothways.model.config import EncoderConfig
from bothways.model.families import find_family
from bothways.model.heads import Model
from bothways.option_checks import options_from, require_path, require_seed, require_type
from bothways.outputs import command_words, require_apart
from bothways.precision import choose_precision
from bothways.progress import Progress
from bothways.tasks.base import Objective
from bothways.tasks.objectives import find_pretraining
from bothways.train.distributed import World, full_tensor, join_world
from bothways.train.helper_models import take_helpers
from bothways.train.keywords import PretrainKeywords
from bothways.train.loop import TrainResult, evaluate_objective, say_if_not_compiled, train
from bothways.train.options import TrainOptions
from bothways.train.pretrain_options import PretrainOptions, options_json
from bothways.train.pretrain_plan import (
    DEFAULT_VALIDATION_TOKENS,
    build_objective,
    epochs_of,
    loop_options,
    make_plan,
    make_validation_plan,
    phases_of,
    validation_tokens,
)
from bothways.train.provenance import in_effect, of_text, of_this_machine
from bothways.train.run import RunDirectory
from bothways.train.samples import samples
from bothways.train.start_line import pretraining_start
from bothways.train.step import Stepper
from bothways.train.tensorboard import require_tensorboard


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

    With other `steps` a run goes on too, finished or not: from there on as a run of that many steps does.
    store: as `prepare` gives it, or its directory. out: the run's directory. options: `PretrainOptions`, or a dict
    of them; as keywords they win (`size="tiny"`, `steps=300`, …), and there `model` may be what `bw.load` gives.
    overwrite: begin anew where `out` holds another run. quiet: nothing on the screen; what would stand there goes to
    the logger `bothways`. progress: what shows it, in place of the line on standard error.

    Writes `out/metrics.jsonl`, `out/checkpoints/`, and, when it is done, `out/model/`.
    Raises UserError for an option of another type or out of range, a sequence longer than the position table, a model
    of another vocabulary, and another run's directory.
    """
    require_type("quiet", quiet, bool)
    require_type("overwrite", overwrite, bool)
    require_path(out=out)
    given: dict[str, Any] = {**(options if isinstance(options, Mapping) else {}), **keywords}
    if given.get("model") is not None:
        given["model"] = str(source_of(given["model"]))
    settings = options_from(PretrainOptions, "pretrain", options, given)
    require_seed(settings.seed)
    if not isinstance(store, TokenStore):
        require_path(store=store)
        store = TokenStore(store)
    if overwrite:
        require_apart(out, [store.directory, settings.model])
    with join_world(choose_device(settings.device)) as world:
        progress = progress or Progress("pretrain", shown=world.main and not quiet)
        return _pretrain(store, RunDirectory(out, world, overwrite=overwrite), settings, progress, world)


def _pretrain(
    store: TokenStore, run: RunDirectory, options: PretrainOptions, progress: Progress, world: World
) -> TrainResult:
    progress.wait(f"{progress.title}  opening the store, making the model …")
    objective = build_objective(options)
    checkpoint = _starting_point(store, objective, options)
    model = checkpoint.model
    longest = max(phase.sequence_length for phase in phases_of(options))
    if longest > checkpoint.config.max_sequence_length:
        raise UserError(
            f"{option('sequence_length', longest)} is above what the model "
            f"reads, {checkpoint.config.max_sequence_length} tokens"
        )
    if options.model is not None and checkpoint.report is not None:
        helpers = [*take_helpers(checkpoint, Path(options.model))]
        for line in (f"{options.model}: {checkpoint.report.sentence()}", *helpers):
            progress.say(line)
    if (unknown := unknown_in_store(store, str(store.directory))) is not None:
        progress.say(unknown)
    plan = make_plan(store, options)
    start = {"model": weights_fingerprint(model), "dropout": options.dropout}
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
    checkpoint.metadata = {"provenance": made}
    run.begin(_described(store, run, options), checkpoint)
    validation = make_validation_plan(store, options)
    if validation is None:
        progress.say(f"{store.directory}: no held-out documents to speak of, so nothing is evaluated")
    elif few := few_held_out(validation.documents):
        progress.say(f"{store.directory}: {few}")

    started = json.loads(world.gather(json.dumps(run.described().get("options", {})))[0])
    read = validation_tokens(options, settings, world.size, started)

    def evaluate(step: int) -> dict[str, Any]:
        if validation is None:
            return {}
        tokens = read.at_end if step == settings.steps else read.during
        figures = evaluate_held_out(model, objective, validation, replace(options, validation_tokens=tokens))
        if "lm_loss" in figures:
            figures = {**figures, "perplexity": _perplexity(figures["lm_loss"])}
        return {**figures, **samples(model, validation)}

    say_if_not_compiled(stepper.device, progress)
    progress.start_line = pretraining_start(stepper, plan, options)
    result = train(stepper, run, progress, evaluate, identity_at=identity_at)
    if result.interrupted is None:
        checkpoint.metadata = {"provenance": {**made, "seconds": round(result.seconds, 1)}}
        _finish(checkpoint, objective, run, world)
    return result


def _described(store: TokenStore, run: RunDirectory, options: PretrainOptions) -> dict[str, Any]:
    """What the run is started with, as run.json has it."""
    given = options_json(options)
    words = ["bothways", "pretrain", str(store.directory)]
    return {
        "command": shlex.join(command_words(words, {"out": str(run.path), **given}, options_json(PretrainOptions()))),
        "store": str(store.directory.resolve()),
        "inputs": {"store": str(store.directory.resolve())},
        "options": given,
    }


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


def _finish(checkpoint: Checkpoint, objective: Objective, run: RunDirectory, world: World) -> None:
    """Write the model, put together again where it was sharded."""
    parameters = {name: full_tensor(tensor.detach()) for name, tensor in checkpoint.model.named_parameters()}
    if world.main:
        checkpoint.model = new_model(checkpoint.config, objective.head, seed=0)
        for name, parameter in checkpoint.model.named_parameters():
            parameter.data.copy_(parameters[name])
        for name, model in checkpoint.model.head.saved_models(checkpoint.model).items():
            save_checkpoint(Checkpoint(model, checkpoint.tokenizer, checkpoint.metadata), run.path / name)
    world.wait()


def evaluate_held_out(
    model: Model, objective: Objective, validation: PretrainingPlan, options: PretrainOptions
) -> dict[str, float]:
    """The objective's means over the held-out documents, by name; without next-sentence figures where there is a single
    document, as all its pairs are true next sentences."""
    device = choose_device(options.device)
    budget = micro_batch_tokens(options.micro_batch_tokens, device)
    batches = validation.evaluation_batches(budget, options.validation_tokens or DEFAULT_VALIDATION_TOKENS)
    figures = evaluate_objective(model, objective, batches, choose_precision(options.precision, device))
    single = validation.documents == 1
    return {name: value for name, value in figures.items() if not (single and name.startswith("nsp"))}


def evaluate_store(
    checkpoint: Checkpoint,
    store: TokenStore,
    split: SplitName,
    device: str,
    limit: int = DEFAULT_VALIDATION_TOKENS,
) -> dict[str, Any]:
    """Loss, perplexity and accuracy of a pretrained model on a split of a store.

    They are those of masked tokens, 15 % of all, with next-sentence loss and accuracy where the model has that head; of
    a causal model those of the next token. limit: tokens to read, at most.
    Raises UserError for a store of another vocabulary, and for a split without text.
    """
    if store.tokenizer_fingerprint != checkpoint.tokenizer.fingerprint:
        raise UserError(
            f"{store.directory} was prepared with the vocabulary {store.tokenizer_fingerprint}, "
            f"{checkpoint.source} has {checkpoint.tokenizer.fingerprint}"
        )
    trained = checkpoint.metadata.get("provenance", {}).get("options", {})
    abilities = checkpoint.model.head.abilities
    usual = "causal" if "causal-LM" in abilities else "bert" if "next-sentence" in abilities else "mlm"
    length = min(int(trained.get("sequence_length", 128)), checkpoint.config.max_sequence_length)
    options = PretrainOptions(
        objective=trained.get("objective", usual), sequence_length=length, device=device, validation_tokens=limit
    )
    plan = make_validation_plan(store, options, split)
    if plan is None:
        if split == "train":
            raise UserError(f"{store.directory}: has no text to speak of")
        raise UserError(
            f"{store.directory}: has no held-out text to measure on; {option('validation', 0.2)} in preparing holds "
            "some out, or give other text, a file or a folder, in the store's place"
        )
    objective = build_objective(options)
    figures = evaluate_held_out(checkpoint.model, objective, plan, options)
    loss = objective.losses[0]
    if loss not in ("mlm_loss", "lm_loss"):  # of others, exp(loss) is no perplexity
        return figures
    accuracy = loss.replace("loss", "accuracy")
    return {accuracy: figures[accuracy], "perplexity": _perplexity(figures[loss]), **figures}


def _perplexity(loss: float) -> float:
    """exp(loss), finite also for a model that has learnt nothing yet."""
    return math.exp(min(loss, 700))  # exp(710) overflows


WARM_UP_STEPS = 2  # the first allocates the optimizer's state, and memory is warm after the second


@dataclass(frozen=True)
class TrainingSpeed:
    """Tokens and floating-point operations (`train.flops`) a second."""

    tokens_per_second: float
    flops_per_second: float


def measure_speed(store: TokenStore, options: PretrainOptions, steps: int = 8) -> TrainingSpeed:
    """The speed of a few training steps of a throw-away model, after `WARM_UP_STEPS`. steps: that are measured."""
    objective = build_objective(options)
    model = _starting_point(store, objective, options).model
    stepper = Stepper(model, objective, make_plan(store, options), loop_options(options, model.config))
    results = [stepper.step(step) for step in range(WARM_UP_STEPS + steps)][WARM_UP_STEPS:]
    seconds = sum(result.seconds for result in results)
    tokens, flops = sum(result.tokens for result in results), sum(result.flops for result in results)
    return TrainingSpeed(tokens / seconds, flops / seconds)


def _new_config(store: TokenStore, options: PretrainOptions) -> EncoderConfig:
    """The hyperparameters of a new model of the family and size that are asked for."""
    entry = find_pretraining(options.objective)
    family = find_family(options.family or entry.family)
    chosen: dict[str, Any] = {
        "vocab_size": store.vocab_size,
        "hidden_dropout_prob": options.dropout,
        "attention_probs_dropout_prob": options.dropout,
        "max_position_embeddings": options.max_position_embeddings,
        "pad_token_id": max(store.tokenizer().pad_id, 0),
    }
    if options.positions != "learned":
        if family.name != "bert":
            raise UserError(f"{option('positions', options.positions)}: {family.title} has its own")
        chosen["positions"] = options.positions
    if options.hidden_act is not None:
        chosen["hidden_act"] = options.hidden_act
    if entry.is_decoder:
        chosen["is_decoder"] = True
    return family.config.from_size(options.size, **chosen)


def _starting_point(store: TokenStore, objective: Objective, options: PretrainOptions) -> Checkpoint:
    """A new model of `options.size`, or `options.model`, with the objective's head.

    Raises UserError for a model of another vocabulary, and for one that reads in the other direction.
    """
    causal = find_pretraining(options.objective).is_decoder
    if options.model is None:
        config = _new_config(store, options)
        return Checkpoint(new_model(config, objective.head, options.seed), store.tokenizer())
    checkpoint = load_checkpoint(options.model, objective.head, dropout=options.dropout, seed=options.seed)
    if checkpoint.tokenizer.fingerprint != store.tokenizer_fingerprint:
        raise UserError(
            f"{store.directory} was prepared with the vocabulary {store.tokenizer_fingerprint}, "
            f"{options.model} has {checkpoint.tokenizer.fingerprint}; prepare the text with "
            f"{option('tokenizer', options.model)}"
        )
    if checkpoint.config.is_decoder != causal:
        reads = "from left to right" if checkpoint.config.is_decoder else "both ways"
        raise UserError(
            f"{options.model} reads {reads} (is_decoder), which {option('objective', options.objective)} does not fit"
        )
    return checkpoint
