"""What is said before a training's first step: the model, what a step is, and how often the data is read."""

from __future__ import annotations

from bothways.data.phases import PhasedPlan
from bothways.data.plan import PretrainingPlan
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.pretrain_plan import epochs_of, phases_of
from bothways.train.step import Stepper

BERT_EPOCHS = 40  # of BERT's own pretraining: Devlin et al. 2018, A.2


def pretraining_start(stepper: Stepper, plan: PretrainingPlan | PhasedPlan, options: PretrainOptions) -> str:
    """The line that begins a pretraining."""
    phases = [
        (phase.end - phase.first, phase.tokens_per_step or options.tokens_per_step, phase.sequence_length)
        for phase in phases_of(options)
    ]
    steps = " and then ".join(f"{n:,} steps of {tokens:,} tokens at length {length}" for n, tokens, length in phases)
    tokens = sum(number * per_step for number, per_step, _ in phases)
    times = epochs_of(plan, options)
    much = f" (BERT read its own {BERT_EPOCHS} times; more text helps more)" if times > BERT_EPOCHS else ""
    name = options.model or options.size
    return f"{name}, {_model(stepper)}; {steps}: {tokens:,} tokens, the text {_times(times)}{much}"


def finetuning_start(stepper: Stepper, rows: int, steps_per_epoch: int) -> str:
    """The line that begins a fine-tuning. rows: to train on."""
    options = stepper.options
    epochs = options.steps / steps_per_epoch
    return (
        f"{rows:,} rows, {_model(stepper)}; {options.steps:,} steps, {steps_per_epoch:,} an epoch: the rows "
        f"{_times(epochs)}; lr {options.lr:.2g}"
    )


def _model(stepper: Stepper) -> str:
    parameters = sum(parameter.numel() for parameter in stepper.model.parameters())
    size = f"{parameters / 1e6:,.1f} million" if parameters >= 1e5 else f"{parameters:,}"
    processes = f" in {stepper.world.size} processes" if stepper.world.size > 1 else ""
    return f"{size} parameters, on {stepper.device} in {str(stepper.dtype).removeprefix('torch.')}{processes}"


def _times(number: float) -> str:
    return f"{number:,.0f} times" if number >= 10 else f"{number:,.1f} times"
