"""How good a pretrained model is on held-out text: the objective's means, and perplexity."""

from __future__ import annotations

import math
from typing import Any

from bothways.checkpoint.hugging_face import Checkpoint
from bothways.data.plan import PretrainingPlan
from bothways.data.store import SplitName, TokenStore
from bothways.errors import UserError, option
from bothways.hardware import choose_device, micro_batch_tokens
from bothways.model.heads import Model
from bothways.precision import choose_precision
from bothways.tasks.base import Objective
from bothways.train.distributed import World
from bothways.train.loop import evaluate_objective
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.pretrain_plan import DEFAULT_VALIDATION_TOKENS, build_objective, make_validation_plan


def evaluate_held_out(
    model: Model,
    objective: Objective,
    validation: PretrainingPlan,
    options: PretrainOptions,
    world: World | None = None,
) -> dict[str, float]:
    """The objective's means over the held-out documents, by name; without next-sentence figures where there is a single
    document, as all its pairs are true next sentences. world: the processes among which the documents are shared out,
    which must all call it."""
    world = world or World()
    device = choose_device(options.device)
    budget = micro_batch_tokens(options.micro_batch_tokens, device)
    tokens = options.validation_tokens or DEFAULT_VALIDATION_TOKENS
    share = validation.evaluation_share(budget, tokens, world.rank, world.size)
    figures = evaluate_objective(model, objective, share, choose_precision(options.precision, device), world)
    single = validation.documents == 1
    return {name: value for name, value in figures.items() if not (single and name.startswith("nsp"))}


def evaluate_store(
    checkpoint: Checkpoint,
    store: TokenStore,
    split: SplitName,
    device: str,
    limit: int = DEFAULT_VALIDATION_TOKENS,
    world: World | None = None,
) -> dict[str, Any]:
    """Loss, perplexity and accuracy of a pretrained model on a split of a store.

    They are those of masked tokens, 15 % of all, with next-sentence loss and accuracy where the model has that head; of
    a causal model those of the next token. limit: tokens to read, at most. world: as `evaluate_held_out` has it.
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
    figures = evaluate_held_out(checkpoint.model, objective, plan, options, world)
    loss = objective.losses[0]
    if loss not in ("mlm_loss", "lm_loss"):  # of others, exp(loss) is no perplexity
        return figures
    accuracy = loss.replace("loss", "accuracy")
    return {accuracy: figures[accuracy], "perplexity": perplexity_of(figures[loss]), **figures}


def perplexity_of(loss: float) -> float:
    """exp(loss), finite also for a model that has learnt nothing yet."""
    return math.exp(min(loss, 700))  # exp(710) overflows
