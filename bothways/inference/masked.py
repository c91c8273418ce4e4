"""What a pretrained model says of masks, and of a sentence that may follow another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bothways.batch import pack_sequences
from bothways.data.encoded import Encoded
from bothways.errors import UserError
from bothways.inference.language import TokenProbability
from bothways.inference.texts import Asked, Texts, together
from bothways.option_checks import require_count

if TYPE_CHECKING:
    from bothways.inference.loaded import LoadedModel


@dataclass(frozen=True, repr=False)
class Fill(TokenProbability):
    """A piece that may stand at a `[MASK]`, and its probability there."""


def fill_masks(model: LoadedModel, texts: Texts, top_k: int) -> Any:
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
    return asked.given([_fills(model, sequence, top_k) for sequence in encoded])


@torch.inference_mode()
def _fills(model: LoadedModel, encoded: Encoded, top_k: int) -> list[list[Fill]]:
    masks = np.flatnonzero(encoded.input_ids == model.tokenizer.mask_id)
    scores = _scores(model, encoded, torch.from_numpy(masks)).mlm.logits
    probabilities, ids = scores.float().softmax(-1).topk(min(top_k, scores.shape[-1]))
    return [
        [Fill(model.tokenizer.token(id), probability) for id, probability in zip(*of_mask, strict=True)]
        for of_mask in zip(ids.tolist(), probabilities.tolist(), strict=True)
    ]


def next_sentence_probabilities(model: LoadedModel, first: Texts, second: Texts) -> Any:
    """The probability that the second text follows the first (`next_sentence_label` 0); of many texts a list, one text
    goes with many. Raises UserError for a model without a next-sentence head."""
    model.require_head("next-sentence", "next_sentence")
    before, behind = (model.asked(values, "next_sentence", pairs=False) for values in (first, second))
    pairs, alone = together(before, behind, ("first text", "second text"))
    asked = Asked(model.asked(pairs, "next_sentence").texts, alone)
    nothing = torch.zeros(0, dtype=torch.long)
    scores = [_scores(model, encoded, nothing).nsp for encoded in model.encode_whole_texts(asked.texts)]
    return asked.given([float(of_pair.float().softmax(-1)[0, 0]) for of_pair in scores])


@torch.inference_mode()
def _scores(model: LoadedModel, encoded: Encoded, mlm_index: Tensor) -> Any:
    """The head's scores of a sequence, masked-LM scores at the tokens in `mlm_index`."""
    batch = pack_sequences([(encoded.input_ids, encoded.token_type_ids)])
    batch.targets = {"mlm_index": mlm_index}
    return model.model(batch.to(model.device))
