"""What a pretraining run is put together from: options → objective, plan, held-out plan, loop options."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from bothways.batch import UNLIMITED
from bothways.data.masking import MaskedExamples, Masker, Masking
from bothways.data.next_tokens import NextTokens
from bothways.data.phases import Phase, PhasedPlan, parse_phases
from bothways.data.plan import PretrainingPlan
from bothways.data.sentence_pairs import FullSentences, FullSentencesAcross, SentenceOrder, SentencePairs
from bothways.data.spans import ExampleMaker, SpanOptions
from bothways.data.store import SplitName, TokenStore
from bothways.errors import UserError
from bothways.hardware import TrainingPrecision
from bothways.model.config import EncoderConfig
from bothways.tasks.base import Objective
from bothways.tasks.pretraining import BertObjective, MaskedLMObjective, NextTokenObjective
from bothways.train.options import Compile, Optimizer, Parallel, TrainOptions

# Peak learning rates for runs of a few thousand tokens a step; recipes with BERT's large batches say their own.
DEFAULT_LR = ((128, 2e-3), (256, 1e-3), (512, 5e-4), (768, 2e-4), (1024, 1e-4))  # up to this hidden_size

ObjectiveName = Literal["bert", "order", "mlm", "roberta", "causal"]
# The loss by the name of the objective, and the segments of documents that examples with masks are made of.
OBJECTIVES: dict[str, Objective] = {
    "bert": BertObjective(),
    "order": BertObjective("sop"),
    "mlm": MaskedLMObjective(),
    "roberta": MaskedLMObjective(),
    "causal": NextTokenObjective(),
}
PAIRINGS: dict[str, type[SentencePairs] | type[FullSentences]] = {
    "bert": SentencePairs,
    "order": SentenceOrder,
    "mlm": FullSentences,
    "roberta": FullSentencesAcross,
}


@dataclass(frozen=True)
class PretrainOptions:
    """What `bothways pretrain` can be told.

    size: a new model of this size, its vocabulary the store's. model: continue from this one instead.
    objective: `bert` is masked LM + next sentence on sentence pairs; `order` has sentence order instead; `mlm` masked
    LM alone on full sentences of one document; `roberta` the same on full sentences across documents; `causal` the next
    token, from left to right, on documents one by one.
    positions: of a new model, `learned` or the fixed `sinusoidal`. hidden_act: the activation of a new model's
    feed-forward layers: gelu, gelu_new, gelu_pytorch_tanh or relu.
    phases: LENGTH:SHARE of the steps, in order, instead of one sequence_length, as in `128:0.9 512:0.1`; a third part,
    as in `512:0.1:131072`, is the phase's own tokens_per_step.
    mask_rate_end: the masking rate moves linearly from mask_rate to this. short: share of examples built to a random
    shorter length. validation_tokens: read in each evaluation, always masked at 15 %.
    micro_batch_tokens: tokens in one forward pass, which is what takes memory. parallel: under torchrun, `fsdp` shards
    parameters and optimizer. keep_checkpoints: the newest so many stay, to resume from and for `bothways explain`.
    compile: by torch.compile. tensorboard: also write RUN/tensorboard. profile: write
    RUN/trace.json, three steps of a trace for chrome://tracing.
    """

    size: str = "mini"
    model: str | None = None
    objective: ObjectiveName = "bert"
    positions: Literal["learned", "sinusoidal"] = "learned"
    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"] = "gelu"
    steps: int = 2000
    tokens_per_step: int = 8192
    sequence_length: int = 128
    phases: tuple[str, ...] = ()
    lr: float | None = None
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0
    optimizer: Optimizer = "adamw"
    dropout: float = 0.0
    mask_rate: float = 0.15
    mask_rate_end: float | None = None
    whole_word_masking: bool = False
    short: float = 0.1
    max_position_embeddings: int = 512
    micro_batch_tokens: int | None = None
    log_every: int = 10
    evaluate_every: int | None = None
    validation_tokens: int = 200_000
    checkpoint_every: int | None = None
    keep_checkpoints: int = 2
    seed: int = 0
    device: str = "auto"
    precision: TrainingPrecision = "auto"
    compile: Compile = "auto"
    parallel: Parallel = "ddp"
    tensorboard: bool = False
    profile: bool = False


def options_json(options: PretrainOptions) -> dict[str, Any]:
    """The options as JSON keeps them; a subclass's own fields (the command line's paths) are left out."""
    return {field.name: getattr(options, field.name) for field in fields(PretrainOptions)}


def build_objective(options: PretrainOptions) -> Objective:
    """What is learnt."""
    return OBJECTIVES[options.objective]


def phases_of(options: PretrainOptions) -> list[Phase]:
    """The run's phases; without `phases`, one of `sequence_length`."""
    if options.phases and options.sequence_length != PretrainOptions.sequence_length:
        raise UserError(
            f"--sequence-length {options.sequence_length} and --phases {' '.join(options.phases)}: give one of them"
        )
    if not options.phases:
        return [Phase(options.sequence_length, 0, options.steps)]
    return parse_phases(options.phases, options.steps)


def make_plan(store: TokenStore, options: PretrainOptions) -> PretrainingPlan | PhasedPlan:
    """The training batches that these options make of a store."""
    phases = phases_of(options)
    whole = Masking(options.mask_rate, whole_word=options.whole_word_masking)
    if options.mask_rate_end is not None:
        whole = replace(whole, end_rate=options.mask_rate_end, steps=options.steps)
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


def make_validation_plan(
    store: TokenStore, options: PretrainOptions, split: SplitName = "validation"
) -> PretrainingPlan | None:
    """The held-out batches, masked at 15 % whatever the training rate is, so that runs can be compared."""
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


def _example_maker(store: TokenStore, options: PretrainOptions, sequence_length: int, masking: Masking) -> ExampleMaker:
    tokenizer, spans = store.tokenizer(), SpanOptions(sequence_length, options.short)
    if options.objective == "causal":
        return NextTokens(spans, tokenizer)
    return MaskedExamples(PAIRINGS[options.objective](spans), Masker(masking, tokenizer), tokenizer)


def default_lr(hidden_size: int) -> float:
    """The peak learning rate for a model of this width, where the user names none."""
    return next((lr for width, lr in DEFAULT_LR if hidden_size <= width), DEFAULT_LR[-1][1])


def loop_options(options: PretrainOptions, config: EncoderConfig) -> TrainOptions:
    """What the loop needs to know, defaults filled in by the model's size and the number of steps."""
    if options.validation_tokens < 1:
        raise UserError(f"--validation-tokens {options.validation_tokens}: expected at least 1")
    tenth = max(1, options.steps // 10)
    return TrainOptions(
        steps=options.steps,
        lr=options.lr if options.lr is not None else default_lr(config.hidden_size),
        warmup=options.warmup,
        weight_decay=options.weight_decay,
        beta2=0.98 if config.hidden_size <= 512 else 0.999,
        clip=options.clip,
        seed=options.seed,
        micro_batch_tokens=options.micro_batch_tokens,
        log_every=options.log_every,
        evaluate_every=tenth if options.evaluate_every is None else options.evaluate_every,
        checkpoint_every=min(500, tenth) if options.checkpoint_every is None else options.checkpoint_every,
        keep_checkpoints=options.keep_checkpoints,
        device=options.device,
        precision=options.precision,
        compile=options.compile,
        parallel=options.parallel,
        optimizer=options.optimizer,
        tensorboard=options.tensorboard,
        profile=options.profile,
    )
