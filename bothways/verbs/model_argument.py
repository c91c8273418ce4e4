"""The model that a verb asks: the one that is named, or the shipped one for the verb."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bothways.checkpoint.shipped import shipped_for
from bothways.precision import InferencePrecision
from bothways.progress import is_main_process, print_note

if TYPE_CHECKING:
    from bothways.predictor import Predictor


class ModelOptions(Protocol):
    """Options of a verb that asks a model."""

    @property
    def model(self) -> str | None: ...
    @property
    def device(self) -> str: ...


def named_model(verb: str, model: str | None) -> str:
    """The name of the model: as it is given, or of the one for the verb, which is said. Raises UserError where there is
    none."""
    if model is not None:
        return model
    found = shipped_for(verb)
    if is_main_process():
        print_note(f"model: {found.name} (shipped; bothways info {found.name})")
    return found.name


def load_model(
    verb: str, options: ModelOptions, precision: InferencePrecision = "auto", calibrate: str | None = None
) -> Predictor:
    """The model, opened. calibrate: a file of texts that int8 is measured on; what came of it is said.

    Raises UserError where there is none, and as `load` does."""
    from bothways.inference.loaded import precision_in_words  # torch takes seconds, and --help needs none
    from bothways.predictor import load

    model = load(named_model(verb, options.model), options.device, precision, calibrate)
    if calibrate is not None:
        model.for_prediction  # noqa: B018 — which measures
        print_note(f"{verb} in {precision_in_words(model)}")
    return model
