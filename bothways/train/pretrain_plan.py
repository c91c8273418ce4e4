"""What follows from the options of pretraining: objective, plan, held-out plan, the loop's options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bothways.data.masking import Masking
from bothways.data.phases import Phase, PhasedPlan, parse_phases
from bothways.data.plan import PretrainingPlan
from bothways.data.spans import ExampleMaker, SpanOptions
from bothways.data.store import SplitName, TokenStore
from bothways.data.survey import estimate_epoch
from bothways.errors import UserError, option
from bothways.model.config import EncoderConfig
from bothways.option_checks import require_at_least
from bothways.tasks.base import Objective
from bothways.tasks.objectives import OBJECTIVES, find_pretraining
from bothways.token_budget import UNLIMITED
from bothways.train.options import TrainOptions, derive_train_options
from bothways.train.pretrain_options import PretrainOptions

DEFAULT_STEPS = 2000  # where neither steps nor a time is given

# Peak learning rates for runs of a few thousand tokens a step; recipes with BERT's large batches say their own.
DEFAULT_LR = ((128, 2e-3), (256, 1e-3), (512, 5e-4), (768, 2e-4), (1024, 1e-4))  # up to this hidden_size

# Adam's second beta. RoBERTa has 0.98 (Liu et al. 2019, section 3.1), whose mean of squared gradients forgets after 50
# steps; small models, which are trained for few steps, take that. The width was chosen by hand, not measured.
SMALL_MODEL_BETA2, SMALL_MODEL_WIDTH = 0.98, 512

# Held-out tokens that an evaluation reads, where the user does not say: enough that masks drawn otherwise hardly move
# the loss. During a run no more than a tenth of the tokens that are trained between two evaluations, which takes about
# a thirtieth of the time, as training multiplies three times as much; but never fewer than make a figure of any use.
DEFAULT_VALIDATION_TOKENS, TRAINED_PER_VALIDATION_TOKEN, MIN_VALIDATION_TOKENS = 200_000, 10, 4096


def build_objective(options: PretrainOptions) -> Objective:
    """The objective of this name: its head, and the losses that are minimised."""
    return find_pretraining(options.objective).objective


def steps_of(options: PretrainOptions) -> int:
    """The steps of the run. Those of hours or minutes are chosen by `train.budget`, which writes them into steps."""
    return DEFAULT_STEPS if options.steps is None else options.steps


def phases_of(options: PretrainOptions) -> list[Phase]:
    """The run's phases; without `phases`, a single phase of `sequence_length`."""
    if options.phases and options.sequence_length != PretrainOptions.sequence_length:
        raise UserError(
            f"{option('sequence_length', options.sequence_length)} and {option('phases', options.phases)}: give one of "
            "them"
        )
    if not options.phases:
        return [Phase(options.sequence_length, 0, steps_of(options))]
    return parse_phases(options.phases, steps_of(options))


def make_plan(store: TokenStore, options: PretrainOptions) -> PretrainingPlan | PhasedPlan:
    """The plan of the training batches that these options make of a store.

    Raises UserError for an option that the objective's examples have no use for.
    """
    _refuse_needless_options(options)
    phases = phases_of(options)
    whole = Masking(
        options.mask_rate,
        options.mask_share,
        round((1 - options.mask_share) / 2, 9),  # 0.1 of 0.8, to the bit
        whole_word=options.whole_word_masking,
        repeats=options.mask_repeats,
    )
    if options.mask_rate_end is not None:
        whole = replace(whole, end_rate=options.mask_rate_end, steps=steps_of(options))
    plans = [
        PretrainingPlan(
            store,
            _example_maker(store, options, phase.sequence_length, whole.between(phase.first, phase.end)),
            tokens_per_step=phase.tokens_per_step or options.tokens_per_step,
            seed=options.seed + number,
        )
        for number, phase in enumerate(phases)
    ]
    return plans[0] if len(plans) == 1 else PhasedPlan(phases, plans)


def _refuse_needless_options(options: PretrainOptions) -> None:
    """Raises UserError for an option of examples that the objective has none of."""
    for name in find_pretraining(options.objective).without:
        if (value := getattr(options, name)) != getattr(PretrainOptions, name):
            able = ", ".join(other for other, entry in OBJECTIVES.items() if name not in entry.without)
            objective = option("objective", options.objective)
            raise UserError(f"{option(name, value)}: {objective} has no use for it; accepted with {able}")


def epochs_of(plan: PretrainingPlan | PhasedPlan, options: PretrainOptions) -> float:
    """How many times the run reads the text that it trains on, estimated from the first block of each phase.

    plan: as `make_plan` makes it of these options.
    """
    phases = phases_of(options)
    plans = plan.plans if isinstance(plan, PhasedPlan) else [plan]
    return sum(
        (phase.end - phase.first) * (phase.tokens_per_step or options.tokens_per_step) / estimate_epoch(of_phase).tokens
        for phase, of_phase in zip(phases, plans, strict=True)
    )


def make_validation_plan(
    store: TokenStore, options: PretrainOptions, split: SplitName = "validation"
) -> PretrainingPlan | None:
    """The plan of the held-out batches, masked at 15 % whatever the training rate is, so that runs can be compared.

    None where the split has no text, or too little for an example.
    """
    if not store.split(split).tokens:
        return None
    plan = PretrainingPlan(
        store,
        _example_maker(
            store, options, phases_of(options)[-1].sequence_length, Masking(whole_word=options.whole_word_masking)
        ),
        tokens_per_step=UNLIMITED,  # of no account: the split is read in one pass
        seed=0,
        split=split,
    )
    return plan if plan.has_examples() else None


@dataclass(frozen=True)
class ValidationTokens:
    """How many held-out tokens an evaluation reads, at most: during the run, and at its end."""

    during: int
    at_end: int


def validation_tokens(options: PretrainOptions, described: Mapping[str, Any] | None = None) -> ValidationTokens:
    """The tokens that the run's evaluations read; no clock decides, so that a resumed run logs the same figures.

    described: the options that the run was started with: an
    earlier Bothways wrote down a number always, and a run of its goes on with that.
    """
    told = options.validation_tokens or (described or {}).get("validation_tokens")
    if told is not None:
        return ValidationTokens(told, told)
    per_step = min(phase.tokens_per_step or options.tokens_per_step for phase in phases_of(options))
    between = per_step * (intervals_of(options).evaluate or steps_of(options))
    during = max(MIN_VALIDATION_TOKENS, between // TRAINED_PER_VALIDATION_TOKEN)
    return ValidationTokens(min(DEFAULT_VALIDATION_TOKENS, during), DEFAULT_VALIDATION_TOKENS)


def _example_maker(store: TokenStore, options: PretrainOptions, sequence_length: int, masking: Masking) -> ExampleMaker:
    entry = find_pretraining(options.objective)
    make_examples = entry.make_examples if options.teacher is None else entry.taught
    assert make_examples is not None, "`train.teaching` refuses what cannot be taught"
    return make_examples(SpanOptions(sequence_length, options.short), masking, store.tokenizer())


def default_lr(hidden_size: int) -> float:
    """The peak learning rate for a model of this width, where the user names none."""
    return next((lr for width, lr in DEFAULT_LR if hidden_size <= width), DEFAULT_LR[-1][1])


@dataclass(frozen=True)
class Intervals:
    """Steps between two evaluations (0: only at the end), and between two checkpoints."""

    evaluate: int
    checkpoint: int


def intervals_of(options: PretrainOptions) -> Intervals:
    """How often the run is evaluated and saved: ten times in its course, where the user does not say."""
    tenth = max(1, steps_of(options) // 10)
    every = options.checkpoint_every
    return Intervals(
        evaluate=tenth if options.evaluate_every is None else options.evaluate_every,
        checkpoint=min(TrainOptions.checkpoint_every, tenth) if every is None else every,
    )


def loop_options(options: PretrainOptions, config: EncoderConfig) -> TrainOptions:
    """The loop's options, with defaults that follow from the model's width and the number of steps."""
    require_at_least(1, validation_tokens=options.validation_tokens)
    highest, intervals = find_pretraining(options.objective).max_lr, intervals_of(options)
    return derive_train_options(
        options,
        PretrainOptions,
        lr=min(default_lr(config.hidden_size), highest) if options.lr is None else options.lr,
        beta2=SMALL_MODEL_BETA2 if config.hidden_size <= SMALL_MODEL_WIDTH else TrainOptions.beta2,
        steps=steps_of(options),
        decay=TrainOptions.decay if options.decay is None else options.decay,
        evaluate_every=intervals.evaluate,
        checkpoint_every=intervals.checkpoint,
    )
