"""Samples of what a model in training makes of held-out text, for people to look at: at every evaluation of the same
places."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bothways.batch import PackedBatch, pack_sequences
from bothways.counter_random import uniforms
from bothways.data.plan import PretrainingPlan
from bothways.inference.generation_options import GenerationOptions
from bothways.inference.sampling import draw_tokens, filtered_logits
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
    """The model's first guess for a few held-out words of one piece: `text` around the mask, `truth`, `guess`,
    `probability`."""
    model.eval()
    batch = _first_batch(validation)
    if batch is None:
        return []
    tokenizer = validation.tokenizer
    places, labels = batch.targets["mlm_index"], batch.targets["mlm_labels"]
    texts = _MaskedTexts(batch, tokenizer)
    whole = [number for number, place in enumerate(places.tolist()) if texts.is_word(place)]
    chosen = whole[:: max(1, len(whole) // NUM_SAMPLES)][:NUM_SAMPLES]
    batch.targets = {"mlm_index": places[chosen]}
    scores = model(batch.to(device_of(model))).mlm.logits.float().softmax(-1).cpu()
    probabilities, guesses = scores.max(-1)
    return [
        {
            "text": texts.around(place),
            "truth": tokenizer.token(label),
            "guess": tokenizer.token(guess),
            "probability": round(probability, 4),
        }
        for place, label, guess, probability in zip(
            places[chosen].tolist(), labels[chosen].tolist(), guesses.tolist(), probabilities.tolist(), strict=True
        )
    ]


class _MaskedTexts:
    """The texts of a masked batch in whole words, as people read them: those that are to be filled in are hidden, also
    where the model saw another word in their place."""

    def __init__(self, batch: PackedBatch, tokenizer: Tokenizer) -> None:
        places = batch.targets["mlm_index"]
        ids = batch.input_ids.index_put((places,), batch.targets["mlm_labels"].to(batch.input_ids.dtype))
        self._ids, self._begins, self._tokenizer = ids.tolist(), batch.cu_seqlens, tokenizer
        self._hidden = set(places.tolist())
        self._continues = tokenizer.continuations()[ids.numpy()]

    def is_word(self, place: int) -> bool:
        """Whether a token is a whole word, of letters or digits."""
        begin, end = self._word(place)
        return end - begin == 1 and self._tokenizer.token(self._ids[place]).isalnum()

    def around(self, place: int) -> str:
        """The words on either side of a token, which is `[MASK]`; `_` stands for others that are hidden."""
        number = int(torch.searchsorted(self._begins, place, right=True))
        begin, end = int(self._begins[number - 1]), int(self._begins[number])
        first, _ = self._word(max(begin + 1, place - CONTEXT_TOKENS))
        _, last = self._word(min(end - 1, place + CONTEXT_TOKENS))
        sides = (self._text(first, place), self._text(place + 1, min(last, end - 1)))
        return " [MASK] ".join(sides).strip()

    def _word(self, place: int) -> tuple[int, int]:
        """Where the word of a token begins and ends."""
        begin, end = place, place + 1
        while begin and self._continues[begin]:
            begin -= 1
        while end < len(self._ids) and self._continues[end]:
            end += 1
        return begin, end

    def _text(self, first: int, last: int) -> str:
        tokenizer, shown = self._tokenizer, list[int]()
        while first < last:
            begin, end = self._word(first)
            hidden = self._hidden.intersection(range(begin, end))
            shown += [tokenizer.mask_id] if hidden else self._ids[begin:end]
            first = end
        return " ".join(tokenizer.decode(shown).replace("[MASK]", "_").replace("[SEP]", " | ").split())


def _first_batch(validation: PretrainingPlan) -> PackedBatch | None:
    return next(validation.evaluation_batches(BATCH_TOKENS, READ_TOKENS), None)


def _decode_to_end(tokenizer: Tokenizer, ids: np.ndarray) -> str:
    """The text of ids up to their `[SEP]`, without `[CLS]`."""
    ends = np.flatnonzero(ids == tokenizer.sep_id)
    before_end = ids[: ends[0]] if len(ends) else ids
    return tokenizer.decode([id for id in before_end.tolist() if id != tokenizer.cls_id])
