"""What requests to our own routes look like, `POST /v1/VERB`: the parameters of the Predictor's methods by name."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bothways.inference.generation_options import GenerationOptions


class TextPair(BaseModel):
    """Two texts that are read together; a list of two texts is two texts."""

    model_config = ConfigDict(extra="forbid")
    text: str
    pair: str


OneText = str | TextPair
AnyTexts = OneText | list[OneText]
SingleTexts = str | list[str]


class VerbRequest(BaseModel):
    """What all have. model: by its name here; it may be left out where only one can answer. truncate: whether a text
    that is longer than the model reads loses its end; else it is refused."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    model: str | None = None
    truncate: bool = False

    def fields(self) -> dict[str, Any]:
        """The parameters of the method; pairs are tuples."""
        names = type(self).model_fields.keys() - {"model", "truncate"}
        return {name: _as_python(getattr(self, name)) for name in names}


def _as_python(value: Any) -> Any:
    if isinstance(value, TextPair):
        return (value.text, value.pair)
    return [_as_python(entry) for entry in value] if isinstance(value, list) else value


class ClassifyRequest(VerbRequest):
    """texts: a text or a pair, or a list of them."""

    texts: AnyTexts = Field(examples=["The router has no light."])


class TagRequest(VerbRequest):
    texts: SingleTexts = Field(examples=["Anna moved from Oslo to Bergen."])


class AnswerRequest(VerbRequest):
    """no_answer: whether there may be none; by default as in training."""

    question: SingleTexts = Field(examples=["What does a red light mean?"])
    context: SingleTexts = Field(examples=["A red light means that the fibre is unplugged."])
    no_answer: bool | None = None


class ChooseRequest(VerbRequest):
    """choices: for all texts, or a list for each."""

    text: SingleTexts = Field(examples=["The router has no light."])
    choices: list[str] | list[list[str]] = Field(examples=[["It has no power.", "It is Tuesday."]])


class EmbedRequest(VerbRequest):
    """encoding_format: `base64` gives all vectors as the bytes of float32 numbers, little-endian, with their shape."""

    texts: AnyTexts = Field(examples=[["slow wifi", "the internet is slow"]])
    normalize: bool = True
    prompt_name: str | None = None
    prompt: str | None = None
    encoding_format: Literal["float", "base64"] = "float"

    def fields(self) -> dict[str, Any]:
        return {name: value for name, value in super().fields().items() if name != "encoding_format"}


class SimilarRequest(VerbRequest):
    query: SingleTexts = Field(examples=["slow wifi"])
    texts: SingleTexts = Field(examples=[["the internet is slow", "my bill is wrong"]])
    top_k: int = 5
    prompt_name: str | None = None
    prompt: str | None = None


class RerankRequest(VerbRequest):
    query: SingleTexts = Field(examples=["slow wifi"])
    texts: SingleTexts = Field(examples=[["the internet is slow", "my bill is wrong"]])
    top_k: int | None = None
    label: str | None = None


class FillRequest(VerbRequest):
    text: AnyTexts = Field(examples=["The router has no [MASK]."])
    top_k: int = 5


class NextSentenceRequest(VerbRequest):
    a: SingleTexts = Field(examples=["The router has no light."])
    b: SingleTexts = Field(examples=["It has no power."])


class SampledRequest(VerbRequest):
    """How a text goes on: the options of `bw.GenerationOptions`. stream: pieces as server-sent events."""

    max_tokens: int = GenerationOptions.max_tokens
    greedy: bool = GenerationOptions.greedy
    temperature: float = GenerationOptions.temperature
    top_k: int = GenerationOptions.top_k
    top_p: float = GenerationOptions.top_p
    min_p: float = GenerationOptions.min_p
    repetition_penalty: float = GenerationOptions.repetition_penalty
    seed: int = GenerationOptions.seed
    stream: bool = False

    def sampling(self) -> dict[str, Any]:
        """The options of a generation."""
        names = SampledRequest.model_fields.keys() - VerbRequest.model_fields.keys() - {"stream"}
        return {name: getattr(self, name) for name in names}


class GenerateRequest(SampledRequest):
    """truncate: whether a prompt that is too long loses its beginning. alternatives: how many likely tokens each event
    of a stream tells."""

    prompt: SingleTexts = Field(examples=["The router"])
    samples: int = Field(1, le=64)
    alternatives: int = Field(0, ge=0, le=20)


class ChatRequest(SampledRequest):
    """truncate: whether a conversation that is too long loses its oldest turns."""

    messages: str | list[dict[str, str]] = Field(examples=[[{"role": "user", "content": "My wifi is slow."}]])


class ScoreRequest(VerbRequest):
    text: SingleTexts = Field(examples=["The router has no light."])
    next: str | None = None
    top_k: int = 5


class SuggestRequest(VerbRequest):
    prompt: SingleTexts = Field(examples=["The router has"])
    top_k: int = Field(3, le=100)  # each of them is followed piece by piece


class ExplainRequest(VerbRequest):
    text: AnyTexts = Field(examples=["The router has no light."])
    others: list[str] = []
    word: str | None = None
    anchors: list[str] = []
    projection: Literal["pca", "umap"] = "pca"


class TokenizeRequest(VerbRequest):
    texts: AnyTexts = Field(examples=["The router has no light."])
