"""What a pretrained model says of masks, and of a sentence that may follow another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bothways.batch import PackedBatch
from bothways.data.encoded import Encoded
from bothways.errors import UserError
from bothways.inference.engine import Forward, Question
from bothways.inference.scoring import TokenProbability
from bothways.inference.texts import Asked, Texts, together
from bothways.model.lm_head import CHUNK, LazyLogits
from bothways.option_checks import require_count

if TYPE_CHECKING:
    from bothways.inference.loaded import LoadedModel


@dataclass(frozen=True, repr=False)
class Fill(TokenProbability):
    """A piece that may stand at a `[MASK]`, and its probability there."""


def fill_masks(model: LoadedModel, texts: Texts, top_k: int) -> Question[Any]:
    """For each `[MASK]` in the text, in order, the `top_k` likeliest pieces; of many texts a list each.

    Raises UserError for a text without a mask or of more tokens than the position table has rows, for a model without a
    masked-LM head, and for `top_k` below 1.
    """
    model.require_head("masked-LM", "fill")
    require_count(top_k=top_k)
    asked = model.asked(texts, "fill")
    encoded = model.encode_whole_texts(asked.texts)
    for text, sequence in zip(asked.texts, encoded, strict=True):
        if model.tokenizer.mask_id not in sequence.input_ids:
            mask = model.tokenizer.roles["mask"]
            raise UserError(f"no {mask} in {text!r}: write {mask} where a word is to be filled in")
    token = model.tokenizer.token

    def split(scores: Any, sequences: Sequence[Encoded], batch: PackedBatch) -> list[list[list[Fill]]]:
        found = iter(_likeliest(scores.mlm, top_k))
        numbers = [len(sequence.targets["masks"]) for sequence in sequences]
        return [
            [[Fill(token(id), probability) for id, probability in next(found)] for _ in range(number)]
            for number in numbers
        ]

    with_masks = [
        replace(sequence, targets={"masks": np.flatnonzero(sequence.input_ids == model.tokenizer.mask_id)})
        for sequence in encoded
    ]
    key = ("fill", top_k)
    return asked.given((yield Forward(model.in_float32, split, with_masks, model.device, key, _masks_of)))


def _masks_of(encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
    lengths = np.array([len(sequence.input_ids) for sequence in encoded])
    begins = np.cumsum(lengths) - lengths
    masks = [begin + sequence.targets["masks"] for begin, sequence in zip(begins, encoded, strict=True)]
    return {"mlm_index": np.concatenate(masks)}


def _likeliest(scores: LazyLogits, top_k: int) -> Iterator[Iterator[tuple[int, float]]]:
    """For each token that is scored the likeliest pieces; multiplied out some at a time, which bounds the memory."""
    for hidden in scores.hidden.split(CHUNK):
        probabilities = replace(scores, hidden=hidden).logits.float().softmax(-1)
        values, ids = probabilities.topk(min(top_k, probabilities.shape[-1]))
        for of_token in zip(ids.tolist(), values.tolist(), strict=True):
            yield zip(*of_token, strict=True)


def next_sentence_probabilities(model: LoadedModel, first: Texts, second: Texts) -> Question[Any]:
    """The probability that the second text follows the first (`next_sentence_label` 0); of many texts a list, one text
    goes with many. Raises UserError for a model without a next-sentence head."""
    model.require_head("next-sentence", "next_sentence")
    before, behind = (model.asked(values, "next_sentence", pairs=False) for values in (first, second))
    pairs, alone = together(before, behind, ("first text", "second text"))
    asked = Asked(model.asked(pairs, "next_sentence").texts, alone)
    encoded = model.encode_whole_texts(asked.texts)
    key = ("next sentence",)
    return asked.given((yield Forward(model.in_float32, _follows, encoded, model.device, key, _no_masks)))


def _no_masks(encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
    return {"mlm_index": np.zeros(0, dtype=np.int64)}


def _follows(scores: Any, encoded: Sequence[Encoded], batch: PackedBatch) -> list[float]:
    probabilities: list[float] = scores.nsp.float().softmax(-1)[:, 0].tolist()
    return probabilities
