"""What a model makes of a text: its decision, which words carried it, and how it formed from layer to layer.

Shapes: T tokens, H hidden, R tokens that a head reads, V vocabulary, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from bothways.batch import PackedBatch
from bothways.explain.answers import ShownAnswer
from bothways.explain.record import record
from bothways.inference.generation import generate
from bothways.inference.generation_options import GenerationOptions
from bothways.model.heads import Ability, Decision

if TYPE_CHECKING:
    from bothways.inference.loaded import LoadedModel

SHOWN_ALTERNATIVES = 8  # likeliest labels or pieces, as many as fit beside the text
MAX_LENS_STATES = 4000  # hidden states that are read through the vocabulary; each is a product with all its pieces
INTEGRAL_STEPS = 32  # of the midpoint rule
DRAWN = GenerationOptions(max_tokens=12, samples=3)


@dataclass(frozen=True)
class ReadText:
    """A text as a page has it.

    batch: one sequence, with the targets that its head reads by. tokens, words: what the page tells of each token, and
    the texts of words. scores: the head's; None where it reads nothing of the text. tagged: the words that a tagger
    decides, where its task says which.
    """

    batch: PackedBatch
    tokens: Sequence[Mapping[str, Any]]
    words: Sequence[str]
    scores: Any
    tagged: Sequence[str] | None = None


def decision_of(model: LoadedModel, batch: PackedBatch, answer: ShownAnswer | None = None) -> Decision | None:
    """The decision of this model on this text, its score a function of the last hidden states `[T, H]`; None for a
    model that only gives vectors. answer: the decision of a model that marks spans."""
    batch = _with_targets(model, batch)
    with torch.no_grad():
        scores = _scores(model, batch, record(model.model.encoder, batch).hidden[-1])
    if scores is None:
        return None
    if answer is not None:
        start, end = answer.first, answer.last
        named = "the answer" if answer.text else "no answer"
        decision: Decision | None = Decision(named, lambda scores: scores[start, 0] + scores[end, 1])
    else:
        decision = model.model.head.decision(scores, _column_name(model))
    if decision is None:
        return None
    by_scores = decision.score
    return replace(decision, score=lambda hidden: by_scores(_scores(model, batch, hidden)))


def _column_name(model: LoadedModel) -> Callable[[int], str]:
    """What a column of a head's scores is called: a piece of the vocabulary, or a label."""
    if "language-model" in model.model.head.abilities:
        return model.tokenizer.token
    labels = model.labels
    return lambda column: labels[column] if column < len(labels) else ""


def _with_targets(model: LoadedModel, batch: PackedBatch) -> PackedBatch:
    """The batch with the targets that heads read by: masks, a causal model's last token, the first pieces of words, by
    the vocabulary's pieces where the batch does not say which words its task has (`tagged_words`)."""
    tokenizer, ids = model.tokenizer, batch.input_ids
    masks = (ids == tokenizer.mask_id).nonzero().flatten()
    ordinary = (ids != tokenizer.cls_id) & (ids != tokenizer.sep_id)
    continues = torch.from_numpy(tokenizer.continuations()).to(ids.device)[ids]
    # the text's [SEP] is not read by a model that goes on from the words before it
    last = torch.tensor([batch.num_tokens - 2], device=ids.device)
    targets = {"mlm_index": masks, "lm_index": last, "word_index": (ordinary & ~continues).nonzero().flatten()}
    return replace(batch, targets={**targets, **batch.targets})


def _scores(model: LoadedModel, batch: PackedBatch, hidden: Tensor) -> Any:
    """The head's scores from the last hidden states `[T, H]`; None where it reads nothing of the text, as a masked
    model where there is no mask."""
    head = model.model.head
    index = head.reads(batch)
    nothing_to_fill = "masked-LM" in head.abilities and not len(batch.targets["mlm_index"])
    if nothing_to_fill or (index is not None and not len(index)):
        return None
    return head(hidden if index is None else hidden[index], batch)


def prediction_view(
    model: LoadedModel,
    batch: PackedBatch,
    tokens: Sequence[Mapping[str, Any]],
    words: Sequence[str],
    answer: ShownAnswer | None = None,
    tagged: Sequence[str] | None = None,
) -> dict[str, Any] | None:
    """The view of predictions, with what this model's head has to say; None where that is nothing. answer: as in
    `decision_of`. tagged: the words of the batch's `word_index`, where a task made it."""
    abilities, view = model.model.head.abilities, dict[str, Any]()
    batch = _with_targets(model, batch)
    with torch.no_grad():
        states = record(model.model.encoder, batch).states
        if "language-model" in abilities:
            view["lens"] = _lens(model, states)
        text = ReadText(batch, tokens, words, _scores(model, batch, states[-1]), tagged)
        if text.scores is not None:
            for ability in abilities & set(SCORE_VIEWS):
                view |= SCORE_VIEWS[ability](model, text)
        if answer is not None:
            start, end = text.scores.float().softmax(0).unbind(-1)
            said = {"answer": answer.text, "probability": answer.probability}
            view["span"] = {"start": start.tolist(), "end": end.tolist(), **said}
    decision = decision_of(model, batch, answer)
    if decision is not None:
        scores = integrated_gradients(model, batch, decision)
        view["attribution"] = {"of": decision.of, "method": "integrated gradients", "scores": scores.tolist()}
    return view or None


def _vocabulary_alternatives(model: LoadedModel, text: ReadText) -> list[list[tuple[str, float]]]:
    scores = model.model.head.vocabulary_scores(text.scores)
    assert scores is not None
    return [_likeliest(probabilities, model.tokenizer.token) for probabilities in scores.logits.float().softmax(-1)]


def _next_view(model: LoadedModel, text: ReadText) -> dict[str, Any]:
    return {"next": _vocabulary_alternatives(model, text)[0], "samples": _samples(model, text.batch)}


def _fills_view(model: LoadedModel, text: ReadText) -> dict[str, Any]:
    masks = zip(text.batch.targets["mlm_index"].tolist(), _vocabulary_alternatives(model, text), strict=True)
    return {"fills": [{"position": position, "alternatives": pieces} for position, pieces in masks]}


def _tags_view(model: LoadedModel, text: ReadText) -> dict[str, Any]:
    probabilities = text.scores.float().softmax(-1)
    words = text.tagged
    if words is None:
        words = [text.words[text.tokens[token]["word"]] for token in text.batch.targets["word_index"].tolist()]
    return {
        "tags": [
            {"word": word, "labels": _likeliest(of_word, model.labels.__getitem__)}
            for word, of_word in zip(words, probabilities, strict=True)
        ]
    }


def _classes_view(model: LoadedModel, text: ReadText) -> dict[str, Any]:
    if len(model.labels) < 2:
        return _score_view(model, text)
    several = model.checkpoint.metadata.get("problem_type") == "multi_label_classification"
    logits = text.scores[0].float()
    return {"classes": _likeliest(logits.sigmoid() if several else logits.softmax(-1), model.labels.__getitem__)}


def _score_view(model: LoadedModel, text: ReadText) -> dict[str, Any]:
    return {"score": float(text.scores.reshape(-1)[0])}


# What the scores of a head with this ability mean; other heads' are not shown.
SCORE_VIEWS: dict[Ability, Callable[[LoadedModel, ReadText], dict[str, Any]]] = {
    "causal-LM": _next_view,
    "masked-LM": _fills_view,
    "token": _tags_view,
    "sequence": _classes_view,
    "choice": _score_view,
}


def _samples(model: LoadedModel, batch: PackedBatch) -> list[str]:
    """How a causal model goes on from the text, drawn a few times."""
    prompt, tokenizer = batch.input_ids[:-1].cpu().numpy(), model.tokenizer
    grown: list[list[int]] = [[] for _ in range(DRAWN.samples)]
    for step in generate(model.model, [prompt], DRAWN, end_id=tokenizer.sep_id, never=tokenizer.suppressed_ids):
        for (_, sample), token in zip(step.texts, step.tokens, strict=True):
            grown[sample].append(token)
    return ["… " + tokenizer.decode([id for id in ids if id != tokenizer.sep_id]) for ids in grown]


def _likeliest(probabilities: Tensor, name: Callable[[int], str]) -> list[tuple[str, float]]:
    values, ids = probabilities.topk(min(SHOWN_ALTERNATIVES, len(probabilities)))
    return [(name(id), value) for id, value in zip(ids.tolist(), values.tolist(), strict=True)]


def _lens(model: LoadedModel, states: Sequence[Tensor]) -> list[list[list[tuple[str, float]]]] | None:
    """What the head would say of every state of every token (nostalgebraist 2020, "the logit lens"): its three
    likeliest pieces with their probabilities. None for texts that are too long to be read so."""
    if len(states) * len(states[0]) > MAX_LENS_STATES:
        return None
    scores = cast(Any, model.model.head).lm
    table = []
    for state in states:
        values, ids = scores(state).logits.float().softmax(-1).topk(3)
        rows = zip(ids.tolist(), values.tolist(), strict=True)
        table.append([[(model.tokenizer.token(i), p) for i, p in zip(*row, strict=True)] for row in rows])
    return table


def integrated_gradients(model: LoadedModel, batch: PackedBatch, decision: Decision) -> Tensor:
    """How much each token's embedding did for the decision, `[T]`, from a text of `[MASK]`s to this one (Sundararajan,
    Taly and Yan 2017, section 3). The numbers sum to the difference of the decision's score between the two, up to the
    error of `INTEGRAL_STEPS` steps of the midpoint rule."""
    encoder = model.model.encoder
    special = (batch.input_ids == model.tokenizer.cls_id) | (batch.input_ids == model.tokenizer.sep_id)
    nothing = replace(batch, input_ids=torch.where(special, batch.input_ids, model.tokenizer.mask_id))
    with torch.no_grad():
        end, begin = encoder.embeddings(batch), encoder.embeddings(nothing)
    total = torch.zeros_like(end)
    for step in range(INTEGRAL_STEPS):
        at = (begin + (end - begin) * ((step + 0.5) / INTEGRAL_STEPS)).requires_grad_()
        with torch.enable_grad():
            score = decision.score(record(encoder, batch, embeddings=at).hidden[-1])
        (gradient,) = torch.autograd.grad(score, at)
        total += gradient / INTEGRAL_STEPS
    return (total * (end - begin)).sum(-1).cpu()
