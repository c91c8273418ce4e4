"""The options of pretraining. Nothing here imports torch, so that `bothways pretrain --help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bothways.option_checks import values_of
from bothways.precision import TrainingPrecision
from bothways.train.options import Compile, Optimizer, Parallel, TrainOptions

# Relation heads: MiniLMv2 has 48 for 768 hidden units, 16 units a head, as more of them taught more (Wang et al. 2020).
# 16 divides the widths of all named sizes, and MiniLM's 384, and costs a third. The temperature was chosen by hand, not
# measured.
RELATION_HEADS, TEACHER_TEMPERATURE = 16, 2.0

# The names of the registries, which import torch: `tasks.objectives.OBJECTIVES` and `model.families.FAMILIES`.
ObjectiveName = Literal[
    "bert",
    "order",
    "mlm",
    "roberta",
    "electra",
    "causal",
]
FamilyName = Literal[
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "distilbert",
    "electra",
    "albert",
    "mpnet",
    "modernbert",
    "gpt2",
]


@dataclass(frozen=True)
class PretrainOptions:
    """What `bothways pretrain` can be told.

    family: of a new model; by default BERT, for `electra` ELECTRA. size: a new model of this size, its vocabulary the
    store's; with hours or minutes `auto` is the largest that sees enough tokens. model: continue from this one instead.
    objective: `bert` is masked LM + next sentence on sentence pairs; `order` has sentence order instead; `mlm` masked
    LM alone on full sentences of one document; `roberta` the same on full sentences across documents; `causal` the next
    token, from left to right, on documents one by one; `electra` replaced tokens, with a small generator of masked LM.
    keep_layers: of `model`, as in 1,3,5, counted from 1; the others are left out.
    teacher: a trained model of the same vocabulary, of which the new one learns besides; see teacher_losses.
    teacher_losses: NAME or NAME=WEIGHT of what is learnt of the teacher, beside the objective's own losses: `relation`,
    how its tokens attend to one another (MiniLMv2); `soft`, its scores for masked tokens; `hidden`, its hidden states,
    at equal widths; by default relation and, of a teacher that fills masks, soft. teacher_layer: whose relations and
    hidden states are learnt, counted from 1; by default the last. relation_heads: that relations are cut into, a
    divisor of both widths. teacher_temperature: of the scores that soft compares.
    positions: of a new model, learned with it or fixed. hidden_act: the activation of a new model's feed-forward
    layers; by default the family's own.
    steps: optimizer steps; by default 2,000. hours: in place of a number of steps, the time in which all of it is to be
    done on this machine, evaluations and checkpoints included. minutes: the same in minutes. decay: share of the steps,
    at the end, in which the learning rate falls; by default all after the warm-up, with hours or minutes 0.2.
    phases: LENGTH:SHARE of the steps, in order, instead of one sequence_length, as in `128:0.9 512:0.1`; a third part,
    as in `512:0.1:131072`, is the phase's own tokens_per_step.
    mask_rate_end: the masking rate moves linearly from mask_rate to this. mask_share: of the tokens to predict, the
    share that is masked; half of the others is replaced by random tokens, half stays. mask_repeats: mask a token
    wherever it stands in the sequence, so that the model cannot copy it. short: share of sentence pairs built to a
    random shorter length. validation_tokens: read in each evaluation, always masked at 15 %; by default 200,000 at the
    end, and before at most a tenth of the tokens that are trained between two evaluations.
    micro_batch_tokens: tokens in one forward pass, which is what takes memory. parallel: under torchrun, `fsdp` shards
    parameters and optimizer. keep_checkpoints: the newest so many stay, to resume from and for `bothways explain`.
    compile: by torch.compile. tensorboard: also write RUN/tensorboard. profile: write
    RUN/trace.json, three steps of a trace for chrome://tracing.
    """

    size: str = "mini"
    model: str | None = None
    keep_layers: str | None = None
    family: FamilyName | None = None
    objective: ObjectiveName = "bert"
    teacher: str | None = None
    teacher_losses: tuple[str, ...] = ()
    teacher_layer: int | None = None
    relation_heads: int = RELATION_HEADS
    teacher_temperature: float = TEACHER_TEMPERATURE
    positions: Literal["learned", "sinusoidal"] = "learned"
    hidden_act: Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"] | None = None
    steps: int | None = None
    hours: float | None = None
    minutes: float | None = None
    tokens_per_step: int = 8192
    sequence_length: int = 128
    phases: tuple[str, ...] = ()
    lr: float | None = None
    warmup: float = TrainOptions.warmup
    decay: float | None = None
    weight_decay: float = TrainOptions.weight_decay
    clip: float = TrainOptions.clip
    optimizer: Optimizer = TrainOptions.optimizer
    dropout: float = 0.0
    mask_rate: float = 0.15
    mask_rate_end: float | None = None
    mask_share: float = 0.8
    whole_word_masking: bool = False
    mask_repeats: bool = False
    short: float = 0.1
    max_position_embeddings: int = 512
    micro_batch_tokens: int | None = TrainOptions.micro_batch_tokens
    log_every: int = TrainOptions.log_every
    evaluate_every: int | None = None
    validation_tokens: int | None = None
    checkpoint_every: int | None = None
    keep_checkpoints: int = TrainOptions.keep_checkpoints
    seed: int = TrainOptions.seed
    device: str = TrainOptions.device
    precision: TrainingPrecision = TrainOptions.precision
    compile: Compile = TrainOptions.compile
    parallel: Parallel = TrainOptions.parallel
    tensorboard: bool = TrainOptions.tensorboard
    profile: bool = TrainOptions.profile


def options_json(options: PretrainOptions) -> dict[str, Any]:
    """The options as run.json and bothways.json keep them, without the command line's paths."""
    return values_of(options, PretrainOptions)
