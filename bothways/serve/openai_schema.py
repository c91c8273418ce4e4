"""What requests to OpenAI's routes look like. Fields that the clients send and that mean nothing here (`user`) are left
alone; those that would change the answer are refused where they ask for what is not done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bothways.inference.generation_options import GenerationOptions
from bothways.serve.failures import RequestError

# Fields that are taken at these values alone, as they ask for nothing then.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "best_of": (None, 1),
    "echo": (None, False),
    "frequency_penalty": (None, 0),
    "functions": (None,),
    "logit_bias": (None, {}),
    "logprobs": (None, False, 0),
    "presence_penalty": (None, 0),
    "response_format": (None, {"type": "text"}),
    "stop": (None, [], ""),
    "suffix": (None, ""),
    "tools": (None, []),
    "top_logprobs": (None, 0),
}


class EmbeddingsRequest(BaseModel):
    """input: a text, texts, token ids, or lists of token ids."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())
    model: str
    input: str | list[str] | list[int] | list[list[int]] = Field(examples=[["slow wifi", "the internet is slow"]])
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = None


class GenerationRequest(BaseModel):
    """What completions and chat have in common."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())
    model: str
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    n: int | None = Field(1, le=64)
    stream: bool | None = False
    stream_options: dict[str, Any] | None = None

    def sampling(self, default_tokens: int, samples: int = 1) -> GenerationOptions:
        """The options of a generation; temperature 0 is the likeliest token always. Raises RequestError for what would
        change the answer and is not done here."""
        extra = self.model_extra or {}
        for name, value in extra.items():
            if name in NEUTRAL and value not in NEUTRAL[name]:
                raise RequestError("invalid", f"{name}: {str(value)[:40]} is not done here", name)
        temperature = 1.0 if self.temperature is None else self.temperature
        return GenerationOptions(
            max_tokens=extra.get("max_completion_tokens") or self.max_tokens or default_tokens,
            greedy=temperature == 0,
            temperature=temperature or 1.0,
            top_p=1.0 if self.top_p is None else self.top_p,
            samples=samples,
            seed=(self.seed or 0) & ((1 << 63) - 1),
        )


class CompletionsRequest(GenerationRequest):
    prompt: str | list[str] = Field(examples=["The router"])


class Message(BaseModel):
    """content: a text, or parts of which each is a text."""

    model_config = ConfigDict(extra="allow")
    role: str
    content: str | list[dict[str, Any]]

    def plain(self) -> dict[str, str]:
        """The message with a text as its content. Raises RequestError for pictures and other parts."""
        if isinstance(self.content, str):
            return {"role": self.role, "content": self.content}
        if any(part.get("type") != "text" or not isinstance(part.get("text"), str) for part in self.content):
            raise RequestError("invalid", "messages: only parts of text are read", "messages")
        return {"role": self.role, "content": "".join(part["text"] for part in self.content)}


class ChatCompletionsRequest(GenerationRequest):
    messages: list[Message] = Field(examples=[[{"role": "user", "content": "My wifi is slow."}]])
