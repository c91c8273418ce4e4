"""Samples of what a model in training makes of held-out text, for people to look at: at every evaluation of the same
places."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bothways.batch import PackedBatch, pack_sequences
from bothways.counter_random import uniforms
from bothways.data.plan import PretrainingPlan
from bothways.inference.sampling import GenerationOptions, draw_tokens, filtered_logits
from bothways.model.heads import Model, device_of
from bothways.text.tokenizer import Tokenizer

NUM_SAMPLES = 4  # as many lines as a terminal has room for at every evaluation
CONTEXT_TOKENS = 7  # on either side of a mask, and of the beginning of a text: makes one line
BATCH_TOKENS, READ_TOKENS = 512, 4096  # the samples are of the first batch of so many tokens of the held-out text
GENERATION = GenerationOptions(max_tokens=24, temperature=0.8, top_k=40)


def samples(model: Model, validation: PretrainingPlan) -> dict[str, Any]:
    """`fills` of masks (`sample_fills`), or of a causal model `continuations` of texts (`sample_continuations`)."""
    if "causal-LM" in model.head.abilities:
        return {"continuations": sample_continuations(model, validation)}
    return {"fills": sample_fills(model, validation)}


@torch.no_grad()
def sample_continuations(model: Model, validation: PretrainingPlan) -> list[dict[str, str]]:
    """How the model goes on from the first tokens of a few held-out examples: `text`, `continuation`.

    The whole texts go through the model for each token, without the cache of `inference/generation.py`: a model that is
    sharded over processes can be run as a whole only.
    """
    model.eval()
    batch = _first_batch(validation)
    if batch is None:
        return []
    tokenizer, device = validation.tokenizer, device_of(model)
    texts = [ids[: 1 + CONTEXT_TOKENS].numpy() for ids in batch.input_ids.split(batch.lengths.tolist())][:NUM_SAMPLES]
    prompt_lengths = [len(ids) for ids in texts]
    room = min(GENERATION.max_tokens, model.config.max_sequence_length - max(prompt_lengths))
    for step in range(room):
        so_far = pack_sequences([(ids, np.zeros_like(ids)) for ids in texts])
        so_far.targets = {"lm_index": so_far.cu_seqlens[1:].long() - 1}
        logits = model(so_far.to(device)).logits.float().cpu()
        logits[:, tokenizer.suppressed_ids] = float("-inf")
        draws = uniforms(np.arange(len(texts), dtype=np.uint64), np.array(step), 0)
        chosen = draw_tokens(filtered_logits(logits, GENERATION), torch.from_numpy(draws))
        texts = [np.append(ids, id) for ids, id in zip(texts, chosen.tolist(), strict=True)]
    return [
        {"text": _decode_to_end(tokenizer, ids[:length]), "continuation": _decode_to_end(tokenizer, ids[length:])}
        for ids, length in zip(texts, prompt_lengths, strict=True)
    ]


@torch.no_grad()
def sample_fills(model: Model, validation: PretrainingPlan) -> list[dict[str, Any]]:
    """The model's first guess for a few held-out words: `text` around the mask, `truth`, `guess`, `probability`."""
    model.eval()
    batch = _first_batch(validation)
    if batch is None:
        return []
    tokenizer = validation.tokenizer
    labels = batch.targets["mlm_labels"]
    whole_words = torch.from_numpy(~tokenizer.continuations())[labels].nonzero().flatten()
    chosen = whole_words[:: max(1, len(whole_words) // NUM_SAMPLES)][:NUM_SAMPLES]
    mlm_index = batch.targets["mlm_index"][chosen]
    batch.targets = {"mlm_index": mlm_index}
    scores = model(batch.to(device_of(model))).mlm.logits.float().softmax(-1).cpu()
    probabilities, guesses = scores.max(-1)
    return [
        {
            "text": _text_around(batch, index, tokenizer),
            "truth": tokenizer.token(label),
            "guess": tokenizer.token(guess),
            "probability": round(probability, 4),
        }
        for index, label, guess, probability in zip(
            mlm_index.tolist(), labels[chosen].tolist(), guesses.tolist(), probabilities.tolist(), strict=True
        )
    ]


def _first_batch(validation: PretrainingPlan) -> PackedBatch | None:
    return next(validation.evaluation_batches(BATCH_TOKENS, READ_TOKENS), None)


def _decode_to_end(tokenizer: Tokenizer, ids: np.ndarray) -> str:
    """The text of ids up to their `[SEP]`, without `[CLS]`."""
    ends = np.flatnonzero(ids == tokenizer.sep_id)
    before_end = ids[: ends[0]] if len(ends) else ids
    return tokenizer.decode([id for id in before_end.tolist() if id != tokenizer.cls_id])


def _text_around(batch: PackedBatch, index: int, tokenizer: Tokenizer) -> str:
    """The tokens on either side of a masked token, of its own sequence; `_` stands for other masks."""
    ids = batch.input_ids.tolist()
    number = int(torch.searchsorted(batch.cu_seqlens, index, right=True))
    begin, end = int(batch.cu_seqlens[number - 1]), int(batch.cu_seqlens[number])
    before = ids[max(begin, index - CONTEXT_TOKENS) : index]
    after = ids[index + 1 : min(end, index + 1 + CONTEXT_TOKENS)]
    sides = (tokenizer.decode(side).replace("[MASK]", "_") for side in (before, after))
    return " [MASK] ".join(sides).strip()
