"""Our own routes: `POST /v1/VERB` for each verb, with the parameters and the results of the Predictor's method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from bothways.inference.generation_options import generation_options
from bothways.inference.language import Continuation
from bothways.predictor import Predictor
from bothways.serve import questions, schema
from bothways.serve.asking import ask, base64_vectors, plain, result_reply, server_sent, stream_reply
from bothways.serve.failures import RequestError
from bothways.serve.inquiries import ServedQuestion
from bothways.serve.questions import Piece
from bothways.serve.service import Answered, Ask

Asking = Callable[..., ServedQuestion]

# verb → what a request to it looks like, and its question. `embed`, `rerank`, `generate` and `chat` are below.
PLAIN_VERBS: Mapping[str, tuple[type[schema.VerbRequest], Asking]] = {
    "classify": (schema.ClassifyRequest, questions.ask_classify),
    "tag": (schema.TagRequest, questions.ask_tag),
    "answer": (schema.AnswerRequest, lambda model, question, context, no_answer: questions.ask_answer(
        model, question, context, no_answer
    )),
    "choose": (schema.ChooseRequest, lambda model, text, choices: questions.ask_choose(model, text, choices)),
    "similar": (schema.SimilarRequest, questions.ask_similar),
    "fill": (schema.FillRequest, questions.ask_fills),
    "next_sentence": (schema.NextSentenceRequest, questions.ask_next_sentence),
    "score": (schema.ScoreRequest, questions.ask_score),
    "suggest": (schema.SuggestRequest, questions.ask_suggestions),
    "explain": (schema.ExplainRequest, questions.ask_explanation),
    "tokenize": (schema.TokenizeRequest, questions.ask_tokens),
}  # fmt: skip


def verb_routes() -> APIRouter:
    """The routes of all verbs but `rerank`, which shares its route with Cohere's."""
    router = APIRouter(prefix="/v1", tags=["bothways"])
    for verb, (kind, question) in PLAIN_VERBS.items():
        router.post(f"/{verb}", summary=f"As `Predictor.{verb}`")(_route(verb, kind, question))
    router.post("/embed", summary="As `Predictor.embed`")(_embed)
    router.post("/generate", summary="As `Predictor.generate`, streamed with `stream`")(_generate)
    router.post("/chat", summary="As `Predictor.chat`, streamed with `stream`")(_chat)
    return router


def _route(verb: str, kind: type[schema.VerbRequest], question: Asking) -> Callable[..., Any]:
    async def route(request: Request, body: Any) -> Response:
        fields = body.fields()
        return await _answer(request, body, verb, lambda model: question(model, **fields))

    route.__name__, route.__doc__ = verb, kind.__doc__
    route.__annotations__ = {"request": Request, "body": kind, "return": Response}  # which FastAPI reads
    return route


async def _embed(request: Request, body: schema.EmbedRequest) -> Response:
    fields = body.fields()
    answered = await ask(
        request,
        body.model,
        "embed",
        lambda model: questions.ask_embed(model, **fields),
        body=body,
        truncate=body.truncate,
    )
    vectors = answered.result
    if body.encoding_format == "base64":
        return result_reply(answered, {"shape": list(vectors.shape), "float32": base64_vectors(vectors)})
    return result_reply(answered, vectors.tolist())


async def rerank_texts_route(request: Request, body: schema.RerankRequest) -> Response:
    """Our own `rerank`, of a request with `texts`."""
    query, texts, top_k, label = body.query, body.texts, body.top_k, body.label
    return await _answer(request, body, "rerank", lambda model: questions.ask_rerank(model, query, texts, top_k, label))


async def _generate(request: Request, body: schema.GenerateRequest) -> Response:
    sampling = body.sampling()
    if not body.stream:
        return await _answer(
            request, body, "generate", lambda model: questions.ask_generate(
                model, body.prompt, body.truncate, **sampling, samples=body.samples
            ),
        )  # fmt: skip
    if not isinstance(body.prompt, str) or body.samples > 1:
        raise RequestError("invalid", "stream: is of one prompt and one sample", "stream")
    prompt = body.prompt
    return await _stream(
        request, body, "generate", lambda model, emit: questions.ask_stream(
            model, prompt, emit, generation_options(sampling), body.truncate, body.alternatives
        ),
    )  # fmt: skip


async def _chat(request: Request, body: schema.ChatRequest) -> Response:
    sampling = body.sampling()
    if not body.stream:
        return await _answer(request, body, "chat", lambda model: questions.ask_chat(model, body.messages, **sampling))
    return await _stream(
        request, body, "chat", lambda model, emit: questions.ask_reply(
            model, body.messages, generation_options(sampling), emit
        ),
    )  # fmt: skip


async def _answer(request: Request, body: schema.VerbRequest, verb: str, question: Ask) -> Response:
    """The answer to a question, its result as it is."""
    answered = await ask(request, body.model, verb, question, body=body, truncate=body.truncate)
    return result_reply(answered, plain(answered.result))


async def _stream(
    request: Request,
    body: schema.VerbRequest,
    verb: str,
    question: Callable[[Predictor, questions.Emit], ServedQuestion],
) -> Response:
    """What a question emits as events, and at the end `done` with the whole."""

    def answer(emit: questions.Emit) -> Any:
        return ask(request, body.model, verb, lambda model: question(model, emit), body=body, truncate=body.truncate)

    return await stream_reply(request, answer, _piece_event, _last_event)


def _piece_event(piece: Piece) -> bytes:
    content: dict[str, Any] = {"text": piece.text}
    if piece.probability is not None:
        alternatives = [{"token": token, "probability": probability} for token, probability in piece.alternatives]
        content |= {"probability": piece.probability, "alternatives": alternatives}
    return server_sent(content)


def _last_event(answered: Answered) -> bytes:
    continuation: Continuation = answered.result
    content = {"model": answered.model, "result": continuation.text, "truncated": answered.truncated}
    told = {name: value for name, value in asdict(continuation).items() if name != "text"}
    return server_sent({**content, "warnings": answered.warnings, **told}, "done")
