"""What a model in training makes of held-out text, for people to look at: the same places at each evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bothways.batch import PackedBatch, pack_sequences
from bothways.counter_random import uniforms
from bothways.data.plan import PretrainingPlan
from bothways.inference.sampling import GenerationOptions, draw, filtered_logits
from bothways.model.heads import Model, device_of
from bothways.text.tokenizer import Tokenizer

SAMPLES, CONTEXT = 4, 7  # so many places, with so many tokens around
GOES_ON = GenerationOptions(max_tokens=24, temperature=0.8, top_k=40)


def samples(model: Model, validation: PretrainingPlan) -> dict[str, Any]:
    """`fills` of masks, or of a causal model `continuations` of the beginnings of texts."""
    if "causal-LM" in model.head.abilities:
        return {"continuations": sample_continuations(model, validation)}
    return {"fills": sample_fills(model, validation)}


@torch.no_grad()
def sample_continuations(model: Model, validation: PretrainingPlan) -> list[dict[str, str]]:
    """How the model goes on from the first tokens of a few held-out examples: text, continuation. The whole texts go
    through the model for each token, as a model that is sharded over processes has to be run."""
    model.eval()
    batch = next(validation.evaluation_batches(token_budget=512, max_tokens=4096), None)
    if batch is None:
        return []
    tokenizer, device = validation.tokenizer, device_of(model)
    texts = [ids[: 1 + CONTEXT].numpy() for ids in batch.input_ids.split(batch.lengths.tolist())][:SAMPLES]
    begun = [len(ids) for ids in texts]
    room = min(GOES_ON.max_tokens, model.config.max_position_embeddings - max(begun))
    never = [id for id in tokenizer.special_ids if id != tokenizer.sep_id]
    for step in range(room):
        going_on = pack_sequences([(ids, np.zeros_like(ids)) for ids in texts])
        going_on.targets = {"lm_index": going_on.cu_seqlens[1:].long() - 1}
        logits = model(going_on.to(device)).logits.float().cpu()
        logits[:, never] = float("-inf")
        draws = uniforms(np.arange(len(texts), dtype=np.uint64), np.array(step), 0)
        chosen = draw(filtered_logits(logits, GOES_ON), torch.from_numpy(draws))
        texts = [np.append(ids, id) for ids, id in zip(texts, chosen.tolist(), strict=True)]
    return [
        {"text": _words(tokenizer, ids[:begin]), "continuation": _words(tokenizer, ids[begin:])}
        for ids, begin in zip(texts, begun, strict=True)
    ]


def _words(tokenizer: Tokenizer, ids: np.ndarray) -> str:
    """Up to the end of the text."""
    ends = np.flatnonzero(ids == tokenizer.sep_id)
    kept = ids[: ends[0]] if len(ends) else ids
    return tokenizer.decode([id for id in kept.tolist() if id != tokenizer.cls_id])


@torch.no_grad()
def sample_fills(model: Model, validation: PretrainingPlan) -> list[dict[str, Any]]:
    """The model's first guess for a few held-out words, the same ones each time: text around, truth, guess,
    probability."""
    model.eval()
    batch = next(validation.evaluation_batches(token_budget=512, max_tokens=4096), None)
    if batch is None:
        return []
    tokenizer = validation.tokenizer
    labels = batch.targets["mlm_labels"]
    whole_words = torch.from_numpy(~tokenizer.continuations())[labels].nonzero().flatten()
    chosen = whole_words[:: max(1, len(whole_words) // SAMPLES)][:SAMPLES]
    rows = batch.targets["mlm_index"][chosen]
    batch.targets = {"mlm_index": rows}
    scores = model(batch.to(device_of(model))).mlm.logits.float().softmax(-1).cpu()
    probabilities, guesses = scores.max(-1)
    return [
        {
            "text": _around(batch, row, tokenizer),
            "truth": tokenizer.token(truth),
            "guess": tokenizer.token(guess),
            "probability": round(probability, 4),
        }
        for row, truth, guess, probability in zip(
            rows.tolist(), labels[chosen].tolist(), guesses.tolist(), probabilities.tolist(), strict=True
        )
    ]


def _around(batch: PackedBatch, row: int, tokenizer: Tokenizer) -> str:
    """The tokens on either side of a row, of its own sequence; `_` stands for other masks."""
    ids, after_row = batch.input_ids.tolist(), row + 1
    number = int(torch.searchsorted(batch.cu_seqlens, row, right=True))
    begin, end = int(batch.cu_seqlens[number - 1]), int(batch.cu_seqlens[number])
    before, after = ids[max(begin, row - CONTEXT) : row], ids[after_row : min(end, after_row + CONTEXT)]
    others = (tokenizer.decode(part).replace("[MASK]", "_") for part in (before, after))
    return " [MASK] ".join(others).strip()
