"""OpenAI's routes: `/v1/embeddings`, `/v1/models`, `/v1/completions`, `/v1/chat/completions`, for its clients."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from bothways.inference.language import Continuation
from bothways.inference.vectors import head_for_vectors
from bothways.predictor import Predictor
from bothways.serve import questions
from bothways.serve.asking import ask, base64_vectors, json_reply, server_sent, service_of, stream_reply
from bothways.serve.failures import RequestError
from bothways.serve.models import model_for
from bothways.serve.openai_schema import ChatCompletionsRequest, CompletionsRequest, EmbeddingsRequest
from bothways.serve.questions import Piece
from bothways.serve.service import Answered

COMPLETION_TOKENS = 16  # OpenAI's default for completions
CHAT_TOKENS = 256
DONE = b"data: [DONE]\n\n"


def openai_routes() -> APIRouter:
    """All four."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"])
    router.post("/embeddings", summary="Vectors of texts")(_embeddings)
    router.get("/models", summary="The models of this server")(_models)
    router.get("/models/{name}", summary="A model of this server")(_one_model)
    router.post("/completions", summary="How prompts go on")(_completions)
    router.post("/chat/completions", summary="The reply to a conversation")(_chat_completions)
    return router


async def _models(request: Request) -> Response:
    service = service_of(request)
    service.require_ready()
    return json_reply({"object": "list", "data": [_described(request, name) for name in service.models]})


async def _one_model(request: Request, name: str) -> Response:
    model_for(service_of(request).models, name, "tokenize")
    return json_reply(_described(request, name))


def _described(request: Request, name: str) -> dict[str, Any]:
    """A model as OpenAI describes it, and what else there is to know."""
    facts = service_of(request).models[name].describe()
    return {"id": name, "object": "model", "created": 0, "owned_by": "bothways", **facts}


async def _embeddings(request: Request, body: EmbeddingsRequest) -> Response:
    """Vectors of length one. `dimensions` must be the model's own: none here is trained to be cut."""
    model = model_for(service_of(request).models, body.model, "embed").predictor
    size = head_for_vectors(model).size(model.config.hidden_size)
    if body.dimensions not in (None, size):
        said = f"dimensions: {body.model} gives {size}, and was not trained to be cut shorter"
        raise RequestError("invalid", said, "dimensions")
    texts = _as_texts(model, body.input)
    answered = await ask(
        request, body.model, "embed", lambda predictor: questions.ask_embed(predictor, texts), body={"input": texts}
    )
    as_base64 = body.encoding_format == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": base64_vectors(vector) if as_base64 else vector.tolist()}
        for index, vector in enumerate(answered.result)
    ]
    usage = {"prompt_tokens": answered.tokens, "total_tokens": answered.tokens}
    return json_reply({"object": "list", "data": data, "model": answered.model, "usage": usage})


def _as_texts(model: Predictor, given: Any) -> list[str]:
    """The texts; token ids become the text that they stand for. Raises RequestError for nothing, and for ids that the
    vocabulary does not have."""
    many = given if isinstance(given, list) and not (given and isinstance(given[0], int)) else [given]
    if not many:
        raise RequestError("invalid", "input: is empty", "input")
    texts = []
    for entry in many:
        if isinstance(entry, str):
            texts.append(entry)
            continue
        if not entry or not all(0 <= id < model.tokenizer.vocab_size for id in entry):
            size = model.tokenizer.vocab_size
            raise RequestError("invalid", f"input: expected token ids of this model, 0 to {size - 1}", "input")
        texts.append(model.tokenizer.decode(entry))
    return texts


async def _completions(request: Request, body: CompletionsRequest) -> Response:
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    samples = body.n or 1
    options = body.sampling(COMPLETION_TOKENS, samples)
    made = _Reply("cmpl", "text_completion", body.model)
    if not body.stream:
        answered = await ask(
            request, body.model, "generate", lambda model: questions.ask_completions(model, prompts, options),
            body=body,
        )  # fmt: skip
        texts: list[Continuation] = [sample for of_prompt in answered.result for sample in of_prompt]
        choices = [{"text": text.text, **_choice(index, text)} for index, text in enumerate(texts)]
        prompt_tokens = sum(of_prompt[0].prompt_tokens for of_prompt in answered.result)
        return json_reply(made.whole(choices, prompt_tokens, texts))
    if len(prompts) != 1 or samples != 1:
        raise RequestError("invalid", "stream: is of one prompt and n=1", "stream")
    return await stream_reply(
        request,
        lambda emit: ask(
            request,
            body.model,
            "generate",
            lambda model: questions.ask_stream(model, prompts[0], emit, options),
            body=body,
        ),
        lambda piece: made.event({"text": piece.text, **_choice(0, None)}),
        lambda answered: made.end({"text": "", **_choice(0, answered.result)}, answered, body.stream_options),
    )


async def _chat_completions(request: Request, body: ChatCompletionsRequest) -> Response:
    messages = [message.plain() for message in body.messages]
    if body.n not in (None, 1):
        raise RequestError("invalid", "n: a conversation goes on with one reply", "n")
    options = body.sampling(CHAT_TOKENS)

    def answer(emit: questions.Emit) -> Any:
        return ask(
            request, body.model, "chat", lambda model: questions.ask_reply(model, messages, options, emit), body=body
        )

    if not body.stream:
        answered = await answer(lambda piece: None)
        text: Continuation = answered.result
        made = _Reply("chatcmpl", "chat.completion", body.model)
        message = {"role": "assistant", "content": text.text}
        return json_reply(made.whole([{"message": message, **_choice(0, text)}], text.prompt_tokens, [text]))
    chunk = _Reply("chatcmpl", "chat.completion.chunk", body.model)

    def piece_event(piece: Piece) -> bytes:
        return chunk.event({"delta": {"role": "assistant", "content": piece.text}, **_choice(0, None)})

    def last_event(answered: Answered) -> bytes:
        return chunk.end({"delta": {}, **_choice(0, answered.result)}, answered, body.stream_options)

    return await stream_reply(request, answer, piece_event, last_event)


def _choice(index: int, text: Continuation | None) -> dict[str, Any]:
    """The end of a choice; None where it goes on."""
    reason = None if text is None else "stop" if text.ended else "length"
    return {"index": index, "finish_reason": reason, "logprobs": None}


class _Reply:
    """What all parts of a reply share: its id, its kind, its time, its model."""

    def __init__(self, prefix: str, kind: str, model: str) -> None:
        self._told = {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, choices: Sequence[Any], prompt_tokens: int, texts: Sequence[Continuation]) -> dict[str, Any]:
        """A reply that is not streamed."""
        return {**self._told, "choices": choices, "usage": _usage(prompt_tokens, texts)}

    def event(self, choice: dict[str, Any]) -> bytes:
        """A part of a stream."""
        return server_sent({**self._told, "choices": [choice]})

    def end(self, choice: dict[str, Any], answered: Answered, options: dict[str, Any] | None) -> bytes:
        """The end of a stream, with the usage where that is asked for."""
        text: Continuation = answered.result
        usage = b""
        if (options or {}).get("include_usage"):
            usage = server_sent({**self._told, "choices": [], "usage": _usage(text.prompt_tokens, [text])})
        return self.event(choice) + usage + DONE


def _usage(prompt_tokens: int, texts: Sequence[Continuation]) -> dict[str, int]:
    made = sum(text.tokens for text in texts)
    return {"prompt_tokens": prompt_tokens, "completion_tokens": made, "total_tokens": prompt_tokens + made}
