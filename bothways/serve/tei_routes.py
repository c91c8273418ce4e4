"""The routes of text-embeddings-inference: /embed, /predict, /rerank, /tokenize, /info, /health, and / for the first
three.

They name no model: one request is answered by the only model here that can; with several, x-model says which.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bothways.predictor import Predictor
from bothways.serve import questions
from bothways.serve.asking import ask, json_reply, service_of
from bothways.serve.direct import field_error
from bothways.serve.failures import RequestError
from bothways.tasks.classifications import Regression
from bothways.version import __version__

Inputs = str | list[str]


class TeiRequest(BaseModel):
    """truncate: whether a text that is longer than the model reads loses its end; else it is refused."""

    model_config = ConfigDict(extra="allow")
    truncate: bool | None = False
    truncation_direction: Literal["Right", "right"] | None = None


class TeiEmbedRequest(TeiRequest):
    inputs: Inputs = Field(examples=[["slow wifi", "the internet is slow"]])
    normalize: bool | None = True
    prompt_name: str | None = None
    dimensions: int | None = None


class TeiPredictRequest(TeiRequest):
    """inputs: a text; a list that is a text alone or a pair; or lists of these. raw_scores: logits, which are not
    given."""

    inputs: str | list[str] | list[list[str]] = Field(examples=["The router has no light."])
    raw_scores: bool | None = False


class TeiRerankRequest(TeiRequest):
    query: str = Field(examples=["slow wifi"])
    texts: list[str] = Field(examples=[["the internet is slow", "my bill is wrong"]])
    raw_scores: bool | None = False
    return_text: bool | None = False


class TeiTokenizeRequest(BaseModel):
    model_config = ConfigDict(extra="allow")
    inputs: Inputs = Field(examples=["The router has no light."])
    add_special_tokens: bool | None = True


def tei_routes() -> APIRouter:
    """All but /rerank, whose route Jina's clients have as well."""
    router = APIRouter(tags=["text-embeddings-inference"])
    router.post("/embed", summary="Vectors of texts")(_embed)
    router.post("/", summary="As /embed, /predict or /rerank, whichever the model is for")(_root)
    router.post("/predict", summary="Labels of texts or pairs, with their scores")(_predict)
    router.post("/tokenize", summary="Tokens of texts")(_tokenize)
    router.get("/info", summary="What is served")(_info)
    router.get("/health", summary="Whether it answers")(_health)
    return router


def _named(request: Request) -> str | None:
    return request.headers.get("x-model")


def _refuse_raw(raw_scores: bool | None) -> None:
    if raw_scores:
        raise RequestError("invalid", "raw_scores: logits are not given, probabilities are", "raw_scores")


async def _root(request: Request, body: TeiRerankRequest | TeiPredictRequest) -> Response:
    """What clients ask that know an address alone, as `huggingface_hub` and LangChain's class do."""
    if isinstance(body, TeiRerankRequest):
        return await tei_rerank(request, body)
    models = service_of(request).models
    name = _named(request) or (next(iter(models)) if len(models) == 1 else None)
    if name in models and "classify" in models[name].verbs:
        return await _predict(request, body)
    try:
        embed = TeiEmbedRequest.model_validate(body.model_dump(exclude_unset=True))
    except ValidationError as error:
        raise field_error(error.errors(include_url=False)) from None
    return await _embed(request, embed)


async def _embed(request: Request, body: TeiEmbedRequest) -> Response:
    if body.dimensions is not None:
        raise RequestError("invalid", "dimensions: no model here was trained to be cut shorter", "dimensions")
    texts, normalize = ([body.inputs] if isinstance(body.inputs, str) else body.inputs), body.normalize is not False
    answered = await ask(
        request, _named(request), "embed",
        lambda model: questions.ask_embed(model, texts, normalize, body.prompt_name), body=body,
        truncate=bool(body.truncate),
    )  # fmt: skip
    return json_reply(answered.result.tolist())


async def _predict(request: Request, body: TeiPredictRequest) -> Response:
    _refuse_raw(body.raw_scores)
    alone = isinstance(body.inputs, str) or (
        isinstance(body.inputs, list) and all(isinstance(i, str) for i in body.inputs)
    )
    many: list[Any] = [body.inputs] if alone else list(body.inputs)
    texts = [_text_or_pair(entry) for entry in many]
    answered = await ask(
        request, _named(request), "classify", lambda model: questions.ask_classify(model, texts), body=body,
        truncate=bool(body.truncate),
    )  # fmt: skip
    found = [_labels(result) for result in answered.result]
    return json_reply(found[0] if alone else found)


def _text_or_pair(entry: Any) -> Any:
    """text-embeddings-inference reads `["a"]` as a text and `["a", "b"]` as a pair."""
    if isinstance(entry, str):
        return entry
    if len(entry) not in (1, 2):
        raise RequestError("invalid", f"inputs: expected a text or a pair, found {len(entry)} texts", "inputs")
    return entry[0] if len(entry) == 1 else tuple(entry)


def _labels(result: Any) -> list[dict[str, Any]]:
    if isinstance(result, Regression):
        return [{"label": "LABEL_0", "score": result.value}]
    ordered = sorted(result.scores.items(), key=lambda entry: -entry[1])
    return [{"label": label, "score": score} for label, score in ordered]


async def tei_rerank(request: Request, body: TeiRerankRequest) -> Response:
    """Texts in order, `[{index, score, text}]`."""
    _refuse_raw(body.raw_scores)
    query, texts = body.query, body.texts
    if not texts:
        raise RequestError("invalid", "texts: is empty", "texts")
    answered = await ask(
        request, _named(request), "rerank", lambda model: questions.ask_rerank(model, query, texts), body=body,
        truncate=bool(body.truncate),
    )  # fmt: skip
    shown = [
        {"index": ranked.index, "score": ranked.score, **({"text": ranked.text} if body.return_text else {})}
        for ranked in answered.result
    ]
    return json_reply(shown)


async def _tokenize(request: Request, body: TeiTokenizeRequest) -> Response:
    texts, special = (
        ([body.inputs] if isinstance(body.inputs, str) else body.inputs),
        body.add_special_tokens is not False,
    )
    first = next(iter(service_of(request).models), None)
    answered = await ask(
        request, _named(request) or first, "tokenize", lambda model: _tokens(model, texts, special), body=body
    )
    return json_reply(answered.result)


def _tokens(model: Predictor, texts: list[str], special: bool) -> Any:
    tokenized = yield from questions.ask_tokens(model, texts)
    ids_of_specials = set(model.tokenizer.special_ids)
    return [
        [
            {"id": id, "text": token, "special": id in ids_of_specials, "start": start, "stop": stop}
            for id, token, (start, stop) in zip(text["ids"], text["tokens"], text["offsets"], strict=True)
            if special or id not in ids_of_specials
        ]
        for text in tokenized
    ]


async def _info(request: Request) -> Response:
    service = service_of(request)
    service.require_ready()
    name = _named(request) or next(iter(service.models))
    if name not in service.models:
        raise RequestError("model_not_found", f"no model {name!r}; here are {', '.join(service.models)}", "x-model")
    model = service.models[name]
    labels = model.predictor.labels
    kind: dict[str, Any] = {"embedding": {"pooling": "mean"}}
    if "classify" in model.verbs:
        names = {str(number): label for number, label in enumerate(labels)}
        kind = {"classifier": {"id2label": names, "label2id": {label: int(n) for n, label in names.items()}}}
    return json_reply(
        {
            "model_id": name,
            "model_sha": None,
            "model_dtype": model.predictor.precision,
            "model_type": kind,
            "max_input_length": model.predictor.sequence_length,
            "max_concurrent_requests": service.limits.max_requests,
            "max_client_batch_size": service.limits.max_texts,
            "auto_truncate": False,
            "version": __version__,
        }
    )


async def _health(request: Request) -> Response:
    service_of(request).require_ready()
    return Response()
