"""`POST /models/NAME` as Hugging Face's inference API has it, for `huggingface_hub.InferenceClient(model=URL)`.

The API has one address for every task of a model: what is asked is told by the shape of `inputs` and `parameters`, and
where these say nothing by what the model was made for. Parameters that would change the answer and that this server
does not have are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Request
from fastapi.responses import Response

from bothways.serve.asking import service_of
from bothways.serve.failures import RequestError
from bothways.serve.hugging_face_schema import InferenceRequest
from bothways.serve.hugging_face_tasks import HANDLERS
from bothways.serve.models import ServedModel, model_for

# The verb that a model is asked where `inputs` does not tell: the first of these that it can.
BY_MODEL = ("fill", "classify", "tag", "generate", "embed")
VECTOR_FIELDS = ("normalize", "truncate", "encoding_format")  # parameters of vectors, beside `inputs`
TASK_VERBS = {
    "feature-extraction": "embed",
    "sentence-similarity": "similar",
    "fill-mask": "fill",
    "text-classification": "classify",
    "token-classification": "tag",
    "question-answering": "answer",
    "zero-shot-classification": "zero_shot",
    "text-generation": "generate",
}


def hugging_face_routes() -> APIRouter:
    """The route of every model, and the one that names the task as well."""
    router = APIRouter(prefix="/models", tags=["Hugging Face"])
    router.post("/{name}", summary="A task of a model, as the Hugging Face inference API has it")(_infer)
    router.post("/{name}/pipeline/{task}", summary="As `/models/{name}`, with the task's name")(_infer)
    return router


async def _infer(request: Request, name: str, body: InferenceRequest, task: str | None = None) -> Response:
    model = _model(request, name)
    verb = TASK_VERBS.get(task or "") or _verb(model, body)
    parameters = {key: value for key, value in body.parameters.items() if value is not None}
    for field in VECTOR_FIELDS:
        if (body.model_extra or {}).get(field) is not None:
            parameters[field] = (body.model_extra or {})[field]
    return await HANDLERS[verb](request, model, body, parameters)


def _model(request: Request, name: str) -> ServedModel:
    service = service_of(request)
    service.require_ready()
    return model_for(service.models, name, "tokenize")


def _verb(model: ServedModel, body: InferenceRequest) -> str:
    inputs = body.inputs
    if isinstance(inputs, Mapping):
        if {"question", "context"} <= set(inputs):
            return "answer"
        if {"source_sentence", "sentences"} <= set(inputs):
            return "similar"
        raise RequestError(
            "invalid", "inputs: expected a text, {question, context} or {source_sentence, sentences}", "inputs"
        )
    if "candidate_labels" in body.parameters:
        return "zero_shot"
    return next(verb for verb in BY_MODEL if verb in model.verbs)
