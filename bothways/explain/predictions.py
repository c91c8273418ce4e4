"""What a model makes of a text: its decision, which words carried it, and how it formed from layer to layer.

Shapes: T tokens, H hidden, R rows that a head reads, V vocabulary, L layers.
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
from bothways.inference.sampling import GenerationOptions
from bothways.model.heads import (
    CausalLMHead,
    Head,
    MaskedLMHead,
    PretrainingHead,
    SequenceHead,
    SpanHead,
    TokenHead,
)

if TYPE_CHECKING:
    from bothways.inference.loaded import LoadedModel

SHOWN = 8  # alternatives
LENS = 4000  # states of tokens that are read through the vocabulary
STEPS = 32  # of the integral
DRAWN = GenerationOptions(max_tokens=12, samples=3)


@dataclass(frozen=True)
class Decision:
    """What was decided, in words, and the number behind it as a function of the last hidden states `[T, H]`."""

    of: str
    score: Callable[[Tensor], Tensor]


def decision_of(model: LoadedModel, batch: PackedBatch, answer: ShownAnswer | None = None) -> Decision | None:
    """The decision of this model on this text; None for a model that only gives vectors. answer: what a model that
    marks spans decided."""
    head, labels = model.model.head, model.labels
    batch, rows = _asked(model, batch)
    if rows is not None and not len(rows):
        return None

    def scores(hidden: Tensor) -> Any:
        return head(hidden if rows is None else hidden[rows], batch)

    with torch.no_grad():
        made = scores(record(model.model.encoder, batch).hidden[-1])
        if isinstance(head, SequenceHead):
            best = int(made[0].argmax()) if made.dim() > 1 else 0
            named = labels[best] if best < len(labels) else "the score"
            return Decision(named, lambda hidden: scores(hidden).reshape(-1)[best])
        if isinstance(head, SpanHead):
            if answer is None:
                return None
            start, end = answer.first, answer.last
            named = "the answer" if answer.text else "no answer"
            return Decision(named, lambda hidden: scores(hidden)[start, 0] + scores(hidden)[end, 1])
        if isinstance(head, TokenHead):
            best_labels = made.argmax(-1)
            inside = [n for n, label in enumerate(best_labels.tolist()) if labels and labels[label] != "O"]
            chosen = torch.tensor(inside or list(range(len(best_labels))))
            return Decision("the labels", lambda hidden: scores(hidden)[chosen, best_labels[chosen]].sum())
        logits = _logits(made)
        if logits is None:
            return None
        token = int(logits[0].argmax())
    return Decision(model.tokenizer.token(token), lambda hidden: cast(Tensor, _logits(scores(hidden)))[0, token])


def _logits(scores: Any) -> Tensor | None:
    """Scores over the vocabulary `[R, V]` of a language-model head."""
    scores = getattr(scores, "mlm", scores)
    return cast("Tensor | None", getattr(scores, "logits", None))


def _asked(model: LoadedModel, batch: PackedBatch) -> tuple[PackedBatch, Tensor | None]:
    """The batch with the targets that its head reads by, and the rows: masks, a causal model's last token, the first
    pieces of words."""
    tokenizer, ids = model.tokenizer, batch.input_ids
    masks = (ids == tokenizer.mask_id).nonzero().flatten()
    ordinary = (ids != tokenizer.cls_id) & (ids != tokenizer.sep_id)
    continues = torch.from_numpy(tokenizer.continuations()).to(ids.device)[ids]
    # the text's [SEP] is not read by a model that goes on from the words before it
    last = torch.tensor([batch.num_tokens - 2], device=ids.device)
    targets = {"mlm_index": masks, "lm_index": last, "word_index": (ordinary & ~continues).nonzero().flatten()}
    batch = replace(batch, targets=targets)
    head: Head = model.model.head
    rows = masks if isinstance(head, MaskedLMHead | PretrainingHead) else head.reads(batch)
    if isinstance(head, PretrainingHead):
        rows = head.reads(batch) if len(masks) else masks
    return batch, rows


def prediction_view(
    model: LoadedModel,
    batch: PackedBatch,
    tokens: Sequence[Mapping[str, Any]],
    words: Sequence[str],
    answer: ShownAnswer | None = None,
) -> dict[str, Any] | None:
    """The view of predictions, with what this model's head has to say; None where that is nothing. answer: as in
    `decision_of`."""
    head, view = model.model.head, dict[str, Any]()
    asked, rows = _asked(model, batch)
    with torch.no_grad():
        states = record(model.model.encoder, batch).states
        if isinstance(head, CausalLMHead | MaskedLMHead | PretrainingHead):
            view["lens"] = _lens(model, states)
        if rows is None or len(rows):
            made = head(states[-1] if rows is None else states[-1][rows], asked)
            view |= _told(model, made, asked, tokens, words)
        if isinstance(head, SpanHead) and answer is not None:
            start, end = head(states[-1], asked).float().softmax(0).unbind(-1)
            said = {"answer": answer.text, "probability": answer.probability}
            view["span"] = {"start": start.tolist(), "end": end.tolist(), **said}
    decision = decision_of(model, batch, answer)
    if decision is not None:
        scores = integrated_gradients(model, batch, decision)
        view["attribution"] = {"of": decision.of, "method": "integrated gradients", "scores": scores.tolist()}
    return view or None


def _told(
    model: LoadedModel, made: Any, batch: PackedBatch, tokens: Sequence[Mapping[str, Any]], words: Sequence[str]
) -> dict[str, Any]:
    """A head's scores as what they mean."""
    head, labels = model.model.head, model.labels
    logits = _logits(made)
    if logits is not None:
        alternatives = [_likeliest(row, model.tokenizer.token) for row in logits.float().softmax(-1)]
        if isinstance(head, CausalLMHead):
            return {"next": alternatives[0], "samples": _samples(model, batch)}
        places = batch.targets["mlm_index"].tolist()
        return {"fills": [{"position": at, "alternatives": one} for at, one in zip(places, alternatives, strict=True)]}
    if isinstance(head, TokenHead):
        rows = zip(batch.targets["word_index"].tolist(), made.float().softmax(-1), strict=True)
        named = ((words[tokens[at]["word"]], _likeliest(row, labels.__getitem__)) for at, row in rows)
        return {"tags": [{"word": word, "labels": likely} for word, likely in named]}
    if isinstance(head, SequenceHead) and len(labels) > 1:
        several = model.checkpoint.metadata.get("problem_type") == "multi_label_classification"
        row = made[0].float().sigmoid() if several else made[0].float().softmax(-1)
        return {"classes": _likeliest(row, labels.__getitem__)}
    return {"score": float(made.reshape(-1)[0])} if isinstance(head, SequenceHead) else {}


def _samples(model: LoadedModel, batch: PackedBatch) -> list[str]:
    """How a causal model goes on from the text, drawn a few times."""
    prompt, tokenizer = batch.input_ids[:-1].cpu().numpy(), model.tokenizer
    grown: list[list[int]] = [[] for _ in range(DRAWN.samples)]
    for step in generate(model.model, [prompt], DRAWN, end_id=tokenizer.sep_id, never=tokenizer.suppressed_ids):
        for (_, sample), token in zip(step.texts, step.tokens, strict=True):
            grown[sample].append(token)
    return ["… " + tokenizer.decode([id for id in ids if id != tokenizer.sep_id]) for ids in grown]


def _likeliest(probabilities: Tensor, name: Callable[[int], str]) -> list[tuple[str, float]]:
    values, ids = probabilities.topk(min(SHOWN, len(probabilities)))
    return [(name(id), value) for id, value in zip(ids.tolist(), values.tolist(), strict=True)]


def _lens(model: LoadedModel, states: Sequence[Tensor]) -> list[list[list[tuple[str, float]]]] | None:
    """What the head would say of every state of every token (nostalgebraist 2020, "the logit lens"): its three
    likeliest pieces with their probabilities. None for texts that are too long to be read so."""
    if len(states) * len(states[0]) > LENS:
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
    error of `STEPS` steps of the midpoint rule."""
    encoder = model.model.encoder
    special = (batch.input_ids == model.tokenizer.cls_id) | (batch.input_ids == model.tokenizer.sep_id)
    nothing = replace(batch, input_ids=torch.where(special, batch.input_ids, model.tokenizer.mask_id))
    with torch.no_grad():
        end, begin = encoder.embeddings(batch), encoder.embeddings(nothing)
    total = torch.zeros_like(end)
    for step in range(STEPS):
        at = (begin + (end - begin) * ((step + 0.5) / STEPS)).requires_grad_()
        with torch.enable_grad():
            score = decision.score(record(encoder, batch, embeddings=at).hidden[-1])
        (gradient,) = torch.autograd.grad(score, at)
        total += gradient / STEPS
    return (total * (end - begin)).sum(-1).cpu()
