"""Reranking as Cohere and Jina have it: `/v1/rerank`, which is ours as well, `/v2/rerank`, and `/rerank`.

A request with `documents` is Cohere's or Jina's, one with `texts` our own; on `/rerank` it is
text-embeddings-inference's.
"""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from bothways.serve import questions
from bothways.serve.asking import ask, json_reply
from bothways.serve.failures import RequestError
from bothways.serve.schema import RerankRequest
from bothways.serve.tei_routes import TeiRerankRequest, tei_rerank
from bothways.serve.verb_routes import rerank_texts_route


class DocumentsRequest(BaseModel):
    """documents: texts, or objects with a `text`. top_n: how many of the best to give."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())
    model: str | None = None
    query: str = Field(examples=["slow wifi"])
    documents: list[str | dict[str, Any]] = Field(examples=[["the internet is slow", "my bill is wrong"]])
    top_n: int | None = Field(None, ge=1)
    return_documents: bool | None = None
    max_chunks_per_doc: int | None = None


def rerank_routes() -> APIRouter:
    """All three."""
    router = APIRouter(tags=["Cohere and Jina"])
    router.post("/v1/rerank", summary="Texts in order; of `documents` as Cohere, of `texts` as `Predictor.rerank`")(_v1)
    router.post("/v2/rerank", summary="Documents in order, as Cohere has it")(_documents)
    router.post("/rerank", summary="As Jina (`documents`) or text-embeddings-inference (`texts`)")(_unversioned)
    return router


async def _v1(request: Request, body: DocumentsRequest | RerankRequest) -> Response:
    if isinstance(body, RerankRequest):
        return await rerank_texts_route(request, body)
    return await _documents(request, body)


async def _unversioned(request: Request, body: DocumentsRequest | TeiRerankRequest) -> Response:
    if isinstance(body, TeiRerankRequest):
        return await tei_rerank(request, body)
    return await _documents(request, body)


async def _documents(request: Request, body: DocumentsRequest) -> Response:
    texts = [document if isinstance(document, str) else document.get("text") for document in body.documents]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise RequestError("invalid", "documents: expected texts, or objects with a text, at least one", "documents")
    query = body.query
    answered = await ask(
        request, body.model, "rerank", lambda model: questions.ask_rerank(model, query, texts, body.top_n),
        body={"documents": texts, "query": query},
    )  # fmt: skip
    results: list[dict[str, Any]] = [
        {"index": ranked.index, "relevance_score": ranked.score} for ranked in answered.result
    ]
    if body.return_documents:
        for result in results:
            result["document"] = {"text": texts[result["index"]]}
    usage = {"total_tokens": answered.tokens, "prompt_tokens": answered.tokens}
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
    told = {"id": uuid.uuid4().hex, "model": answered.model, "object": "list"}
    return json_reply({**told, "results": results, "usage": usage, "meta": meta, "warnings": answered.warnings})
