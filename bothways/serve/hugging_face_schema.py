"""What requests to Hugging Face's route look like, and the parameters of a task."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from bothways.serve.failures import RequestError


class InferenceRequest(BaseModel):
    """inputs: a text or a list of them; {question, context}; {source_sentence, sentences}. parameters: of the task."""

    model_config = ConfigDict(extra="allow")
    inputs: Any = Field(examples=["The router has no light."])
    parameters: dict[str, Any] = {}
    stream: bool = False


def known_parameters(parameters: dict[str, Any], **known: Any) -> dict[str, Any]:
    """The parameters that are known, with defaults. Raises RequestError for one that is not, or of another type."""
    for name, value in parameters.items():
        if name not in known:
            raise RequestError("invalid", f"parameters.{name}: is not known here; known: {', '.join(known)}", name)
        default = known[name]
        kind = float if isinstance(default, float) else type(default)
        right = isinstance(value, int | float if kind is float else kind) and isinstance(value, bool) == (kind is bool)
        if default is not None and not right:
            raise RequestError("invalid", f"parameters.{name}: {value!r}, expected {kind.__name__}", name)
    return {**known, **parameters}


def texts_in(inputs: Any) -> Any:
    """A text or texts. Raises RequestError for anything else."""
    many = inputs if isinstance(inputs, list) else [inputs]
    if not many or not all(isinstance(text, str) for text in many):
        raise RequestError("invalid", "inputs: expected a text or a list of texts", "inputs")
    return inputs
