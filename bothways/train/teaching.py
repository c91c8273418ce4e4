"""The teacher of a pretraining: opened, compared with what the run is of, and put beside the objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from bothways.checkpoint.hugging_face import Checkpoint, load_checkpoint, weights_fingerprint
from bothways.data.store import TokenStore
from bothways.errors import UserError, option
from bothways.hardware import choose_device
from bothways.inference.teacher import ModelTeacher
from bothways.precision import choose_precision
from bothways.tasks.base import Objective, require_segment_types
from bothways.tasks.distillation import DistilledObjective, Teaching, parse_teacher_losses
from bothways.tasks.objectives import OBJECTIVES, find_pretraining
from bothways.tasks.pretraining import MaskedLMObjective
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.pretrain_plan import phases_of

# Both losses by default, each with the weight 1: relations as MiniLMv2 has them, soft targets where there are any.
DEFAULT_LOSSES = ("relation", "soft")


@dataclass(frozen=True)
class TaughtObjective:
    """An objective, with a teacher or without. identity: what a resumed run must share of the teacher, by name."""

    objective: Objective
    identity: dict[str, Any] = field(default_factory=dict)


def with_teacher(
    objective: Objective, store: TokenStore, options: PretrainOptions, say: Callable[[str], None]
) -> TaughtObjective:
    """The objective beside what `options.teacher` shows; itself where there is no teacher.

    Raises UserError for an objective that a teacher cannot help, and for a teacher of another vocabulary, of shorter
    sequences, without the layer or the head that is asked for.
    """
    if options.teacher is None:
        _refuse_lonely_options(options)
        return TaughtObjective(objective)
    if find_pretraining(options.objective).taught is None:
        able = ", ".join(name for name, entry in OBJECTIVES.items() if entry.taught is not None)
        raise UserError(
            f"{option('teacher', options.teacher)}: teaches masked LM, not {option('objective', options.objective)}; "
            f"accepted: {able}"
        )
    checkpoint = load_checkpoint(options.teacher)
    _require_common_ground(checkpoint, objective, store, options)
    layers = len(checkpoint.model.encoder.order)
    layer = layers if options.teacher_layer is None else options.teacher_layer
    if not 1 <= layer <= layers:
        raise UserError(f"{option('teacher_layer', layer)}: {options.teacher} has the layers 1 to {layers}")
    width = checkpoint.config.hidden_size
    teaching = Teaching(_losses(checkpoint, options), options.relation_heads, options.teacher_temperature, width)
    shown = ", ".join(f"{name} (weight {weight:g})" for name, weight in teaching.weights.items())
    say(f"teacher {options.teacher}: {layers} layers of {width}, of which layer {layer} is shown; losses: {shown}")
    device = choose_device(options.device)
    teacher = ModelTeacher(
        checkpoint.model.to(device), layer, teaching.weights, choose_precision(options.precision, device)
    )
    identity = {"teacher": weights_fingerprint(checkpoint.model), "teaching": {**asdict(teaching), "layer": layer}}
    return TaughtObjective(DistilledObjective(cast("MaskedLMObjective", objective), teacher, teaching), identity)


def _refuse_lonely_options(options: PretrainOptions) -> None:
    """Raises UserError for options of a teacher where there is none."""
    for name in ("teacher_losses", "teacher_layer", "relation_heads", "teacher_temperature"):
        if (value := getattr(options, name)) != getattr(PretrainOptions, name):
            raise UserError(f"{option(name, value)}: of a teacher, and there is none; {option('teacher')} names it")


def _require_common_ground(
    checkpoint: Checkpoint, objective: Objective, store: TokenStore, options: PretrainOptions
) -> None:
    """Raises UserError for a teacher that cannot read the run's batches."""
    teacher, config = option("teacher", options.teacher), checkpoint.config
    if checkpoint.tokenizer.fingerprint != store.tokenizer_fingerprint:
        raise UserError(
            f"{teacher}: has the vocabulary {checkpoint.tokenizer.fingerprint}, {store.directory} was prepared with "
            f"{store.tokenizer_fingerprint}; prepare the text with {option('tokenizer', options.teacher)}"
        )
    if config.is_decoder:
        raise UserError(f"{teacher}: reads from left to right (is_decoder); take one that reads both ways")
    longest = max(phase.sequence_length for phase in phases_of(options))
    if longest > config.max_sequence_length:
        asked = option("sequence_length", longest)
        raise UserError(f"{asked} is above what the teacher reads, {config.max_sequence_length} tokens")
    if objective.losses != MaskedLMObjective().losses:  # those of pairs
        require_segment_types(config, teacher)


def _losses(checkpoint: Checkpoint, options: PretrainOptions) -> dict[str, float]:
    """The losses that are asked for with their weights; soft targets need a head that was trained for them."""
    asked = parse_teacher_losses(options.teacher_losses or DEFAULT_LOSSES)
    assert checkpoint.report is not None
    new = [name for name in checkpoint.report.newly_initialised if name.startswith("head.lm.")]
    if "masked-LM" in checkpoint.model.head.abilities and not new:
        return asked
    if options.teacher_losses and "soft" in asked:
        raise UserError(
            f"{option('teacher_losses', 'soft')}: {options.teacher} has no head of masked LM, whose scores would be "
            "the soft targets; leave it out"
        )
    return {name: weight for name, weight in asked.items() if name != "soft"}
