"""The tasks of a model as Hugging Face's inference API asks: from `inputs` and `parameters` to a reply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from fastapi import Request
from fastapi.responses import Response

from bothways.inference.generation_options import GenerationOptions
from bothways.inference.language import Continuation
from bothways.serve import questions
from bothways.serve.asking import ask, base64_vectors, json_reply, server_sent, stream_reply
from bothways.serve.failures import RequestError
from bothways.serve.hugging_face_schema import InferenceRequest, known_parameters, texts_in
from bothways.serve.models import ServedModel
from bothways.serve.questions import Piece
from bothways.serve.service import Answered
from bothways.tasks.base import softmax

ENTAILMENT, CONTRADICTION = "entailment", "contradiction"
HYPOTHESIS = "This example is {}."


async def _fill(request: Request, model: ServedModel, body: InferenceRequest, given: dict[str, Any]) -> Response:
    options = known_parameters(given, top_k=5)
    texts = texts_in(body.inputs)
    asked = await ask(
        request,
        model.name,
        "fill",
        lambda predictor: questions.ask_fills(predictor, texts, options["top_k"]),
        body=body,
    )
    tokenizer = model.predictor.tokenizer
    mask = tokenizer.token(tokenizer.mask_id)

    def shown(text: str, masks: Any) -> Any:
        found = [
            [
                {
                    "score": fill.probability,
                    "token": tokenizer.id(fill.token),
                    "token_str": fill.token,
                    "sequence": _with_nth(text, mask, number, fill.token),
                }
                for fill in fills
            ]
            for number, fills in enumerate(masks)
        ]
        return found[0] if len(found) == 1 else found

    if isinstance(texts, str):
        return json_reply(shown(texts, asked.result))
    return json_reply([shown(text, masks) for text, masks in zip(texts, asked.result, strict=True)])


def _with_nth(text: str, mask: str, number: int, token: str) -> str:
    """The text with its n-th mask filled."""
    parts = text.split(mask)
    return mask.join(parts[: number + 1]) + token + mask.join(parts[number + 1 :])


async def _classify(request: Request, model: ServedModel, body: InferenceRequest, given: dict[str, Any]) -> Response:
    options = known_parameters(given, top_k=None, function_to_apply=None, truncate=False)
    if options["function_to_apply"] not in (None, "softmax", "sigmoid"):
        raise RequestError("invalid", "parameters.function_to_apply: the model's own is applied", "function_to_apply")
    texts = texts_in(body.inputs)
    asked = await ask(
        request, model.name, "classify", lambda predictor: questions.ask_classify(predictor, texts), body=body,
        truncate=options["truncate"],
    )  # fmt: skip
    results = [asked.result] if isinstance(texts, str) else asked.result
    return json_reply([_labels(result)[: options["top_k"]] for result in results])


def _labels(result: Any) -> list[dict[str, Any]]:
    """Labels and their scores, the likeliest first; of a regression its number."""
    scores = {"LABEL_0": result.value} if hasattr(result, "value") else result.scores
    return [{"label": label, "score": score} for label, score in sorted(scores.items(), key=lambda entry: -entry[1])]


async def _tag(request: Request, model: ServedModel, body: InferenceRequest, given: dict[str, Any]) -> Response:
    """Under every strategy a word has the label of its first piece: so models are trained here, and what the strategies
    do with pieces of other labels does not arise."""
    options = known_parameters(given, aggregation_strategy="simple", ignore_labels=["O"], stride=0)
    if options["aggregation_strategy"] not in ("none", "simple", "first", "average", "max"):
        known = "none, simple, first, average, max"
        raise RequestError("invalid", f"parameters.aggregation_strategy: expected {known}", "aggregation_strategy")
    texts = texts_in(body.inputs)
    asked = await ask(request, model.name, "tag", lambda predictor: questions.ask_tag(predictor, texts), body=body)
    name = "entity" if options["aggregation_strategy"] == "none" else "entity_group"
    found = [
        [
            {name: e.label, "score": e.probability, "word": e.text, "start": e.start, "end": e.end}
            for e in entities
            if e.label not in options["ignore_labels"]
        ]
        for entities in ([asked.result] if isinstance(texts, str) else asked.result)
    ]
    return json_reply(found[0] if isinstance(texts, str) else found)


async def _answer(request: Request, model: ServedModel, body: InferenceRequest, given: dict[str, Any]) -> Response:
    options = known_parameters(given, handle_impossible_answer=False, top_k=1, align_to_words=True)
    question, context = (texts_in(body.inputs.get(name)) for name in ("question", "context"))
    allowed = options["handle_impossible_answer"]
    asked = await ask(
        request, model.name, "answer", lambda predictor: questions.ask_answer(predictor, question, context, allowed),
        body=body.inputs,
    )  # fmt: skip
    answers = [asked.result, *asked.result.alternatives][: options["top_k"]]
    found = [{"answer": a.text, "score": a.probability, "start": a.start, "end": a.end} for a in answers]
    return json_reply(found[0] if options["top_k"] == 1 else found)


async def _embed(request: Request, model: ServedModel, body: InferenceRequest, given: dict[str, Any]) -> Response:
    options = known_parameters(given, normalize=True, truncate=False, encoding_format="float")
    texts = texts_in(body.inputs)
    asked = await ask(
        request, model.name, "embed", lambda predictor: questions.ask_embed(predictor, texts, options["normalize"]),
        body=body, truncate=options["truncate"],
    )  # fmt: skip
    vectors = asked.result.reshape(-1, asked.result.shape[-1])
    if options["encoding_format"] == "base64":
        return json_reply([base64_vectors(vector) for vector in vectors])
    return json_reply(vectors.tolist())


async def _similar(request: Request, model: ServedModel, body: InferenceRequest, given: dict[str, Any]) -> Response:
    known_parameters(given)
    query, texts = body.inputs["source_sentence"], texts_in(body.inputs["sentences"])
    asked = await ask(
        request, model.name, "similar", lambda predictor: questions.ask_similar(predictor, query, texts, len(texts)),
        body=body.inputs,
    )  # fmt: skip
    return json_reply([match.cosine for match in sorted(asked.result, key=lambda match: match.index)])


async def _zero_shot(request: Request, model: ServedModel, body: InferenceRequest, given: dict[str, Any]) -> Response:
    """As `transformers`' pipeline: of one label the softmax over the labels' logits of entailment, of several each by
    itself against contradiction."""
    options = known_parameters(given, candidate_labels=[], multi_label=False, hypothesis_template=HYPOTHESIS)
    columns = {label.lower(): number for number, label in enumerate(model.predictor.labels)}
    labels, text, template = (
        texts_in(options["candidate_labels"]),
        texts_in(body.inputs),
        options["hypothesis_template"],
    )
    if ENTAILMENT not in columns or "rerank" not in model.verbs or not isinstance(text, str):
        raise RequestError("wrong_model", f"{model.name}: labels of one's own need a model of entailment, and one text")
    if "{}" not in template:
        raise RequestError(
            "invalid", "parameters.hypothesis_template: expected {} where the label stands", "parameters"
        )
    pairs = [(text, template.replace("{}", label)) for label in labels]
    asked = await ask(
        request, model.name, "classify", lambda predictor: questions.ask_pair_logits(predictor, pairs), body=body
    )
    entailed = asked.result[:, columns[ENTAILMENT]]
    if options["multi_label"] or len(labels) == 1:
        against = asked.result[:, columns.get(CONTRADICTION, 1 - columns[ENTAILMENT])]
        scores = softmax(np.stack([against, entailed], axis=1))[:, 1]
    else:
        scores = softmax(entailed)
    ordered = sorted(zip(labels, scores.tolist(), strict=True), key=lambda entry: -entry[1])
    return json_reply([{"label": label, "score": score} for label, score in ordered])


async def _generate(request: Request, model: ServedModel, body: InferenceRequest, given: dict[str, Any]) -> Response:
    options = known_parameters(
        given, max_new_tokens=100, temperature=1.0, top_k=0, top_p=1.0, repetition_penalty=1.0, seed=0, do_sample=False,
        return_full_text=False, details=False, stop=[], truncate=None, watermark=False, decoder_input_details=False,
    )  # fmt: skip
    if options["stop"] or options["watermark"] or options["decoder_input_details"]:
        raise RequestError(
            "invalid", "parameters: stop, watermark and decoder_input_details are not known here", "stop"
        )
    prompt = texts_in(body.inputs)
    sampling = GenerationOptions(
        max_tokens=options["max_new_tokens"], greedy=not options["do_sample"], temperature=options["temperature"],
        top_k=options["top_k"], top_p=options["top_p"], repetition_penalty=options["repetition_penalty"],
        seed=options["seed"],
    )  # fmt: skip

    def answer(emit: questions.Emit) -> Any:
        return ask(
            request, model.name, "generate",
            lambda predictor: questions.ask_stream(predictor, prompt, emit, sampling, True),
            body=body, truncate=True,
        )  # fmt: skip

    before = prompt if options["return_full_text"] else ""
    if body.stream:
        return await stream_reply(request, answer, _piece_event, lambda answered: _last_event(answered, before))
    answered = await answer(lambda piece: None)
    return json_reply([{"generated_text": before + answered.result.text}])


def _piece_event(piece: Piece) -> bytes:
    token = {"id": 0, "text": piece.text, "logprob": None, "special": False}
    return server_sent({"index": 0, "token": token, "generated_text": None, "details": None})


def _last_event(answered: Answered, before: str) -> bytes:
    continuation: Continuation = answered.result
    details = {
        "finish_reason": "eos_token" if continuation.ended else "length",
        "generated_tokens": continuation.tokens,
        "input_length": continuation.prompt_tokens,
        "seed": None,
    }
    token = {"id": 0, "text": "", "logprob": None, "special": True}
    return server_sent({"index": 0, "token": token, "generated_text": before + continuation.text, "details": details})


HANDLERS: Mapping[str, Callable[..., Any]] = {
    "fill": _fill,
    "classify": _classify,
    "tag": _tag,
    "answer": _answer,
    "embed": _embed,
    "similar": _similar,
    "zero_shot": _zero_shot,
    "generate": _generate,
}
