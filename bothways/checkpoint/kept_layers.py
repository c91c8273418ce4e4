"""A smaller model made of some layers of a larger one, as DistilBERT begins with every other layer of BERT (Sanh et al.
2019, section 3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from bothways.checkpoint.hugging_face import Checkpoint, HeadBuilder, new_model
from bothways.errors import UserError, option

_LAYER = re.compile(r"^encoder\.layers\.(\d+)\.")


def parse_layers(asked: str, layers: int) -> list[int]:
    """Numbers of layers, from 1 to `layers`, written as `1,3,5`. Raises UserError for others, and where they do not
    rise."""
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in asked.split(",")]
    if numbers != sorted(set(numbers)) or not 1 <= numbers[0] <= numbers[-1] <= layers:
        wanted = f"numbers out of 1 to {layers} with commas, as in 1,2, each above the one before"
        raise UserError(f"{option('keep_layers', asked)}: expected {wanted}")
    return numbers


def keep_layers(checkpoint: Checkpoint, numbers: Sequence[int], head: HeadBuilder) -> Checkpoint:
    """The checkpoint with a model of these layers alone, counted from 1, and of all else that it had.

    head: builds the model's head. Raises UserError for layers that share their weights, and for layers that cannot
    stand in each other's place.
    """
    encoder, source = checkpoint.model.encoder, checkpoint.source
    if len(encoder.layers) < len(encoder.order):
        raise UserError(f"{option('keep_layers')}: {source} has layers that share their weights; all of them stay")
    model = new_model(checkpoint.config.with_layers([number - 1 for number in numbers]), head, seed=0)
    there = checkpoint.model.state_dict()

    def source_name(name: str) -> str:
        return _LAYER.sub(lambda found: f"encoder.layers.{numbers[int(found[1])] - 1}.", name)

    sources = {name: source_name(name) for name in model.state_dict()}
    kept = {name for name in there if (found := _LAYER.match(name)) and int(found[1]) + 1 in numbers}
    if unlike := sorted(kept.symmetric_difference(filter(_LAYER.match, sources.values()))):
        reason = f"the layers of {source} are not alike ({unlike[0]} has no place)"
        raise UserError(f"{option('keep_layers')}: {reason}; keep the first one")
    model.load_state_dict({name: there[original] for name, original in sources.items()})
    return replace(checkpoint, model=model.eval())
