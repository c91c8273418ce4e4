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
from bothways.inference.texts import Text
from bothways.option_checks import require_count

if TYPE_CHECKING:
    from bothways.inference.loaded import LoadedModel


@dataclass(frozen=True)
class Fill(TokenProbability):
    """A piece that may stand at a `[MASK]`, and its probability there."""


@torch.inference_mode()
def fill_masks(model: LoadedModel, text: Text, top_k: int) -> list[list[Fill]]:
    """For each `[MASK]` in the text, in order, the `top_k` likeliest pieces.

    Raises UserError for a text without a mask or of more tokens than the position table has rows, for a model without a
    masked-LM head, and for `top_k` below 1.
    """
    model.require_head("masked-LM", "fill")
    require_count(top_k=top_k)
    (encoded,) = model.encode_whole_texts(model.checked_texts([text]))
    masks = np.flatnonzero(encoded.input_ids == model.tokenizer.mask_id)
    if not len(masks):
        raise UserError(f"no [MASK] in {text!r}: write [MASK] where a word is to be filled in")
    scores = _scores(model, encoded, torch.from_numpy(masks)).mlm.logits
    probabilities, ids = scores.float().softmax(-1).topk(min(top_k, scores.shape[-1]))
    return [
        [Fill(model.tokenizer.token(id), probability) for id, probability in zip(*of_mask, strict=True)]
        for of_mask in zip(ids.tolist(), probabilities.tolist(), strict=True)
    ]


@torch.inference_mode()
def next_sentence_probability(model: LoadedModel, a: str, b: str) -> float:
    """The probability that `b` follows `a` (`next_sentence_label` 0). Raises UserError for a model without a
    next-sentence head."""
    model.require_head("next-sentence", "next_sentence")
    (encoded,) = model.encode_whole_texts(model.checked_texts([(a, b)]))
    scores = _scores(model, encoded, torch.zeros(0, dtype=torch.long)).nsp
    return float(scores.float().softmax(-1)[0, 0])


def _scores(model: LoadedModel, encoded: Encoded, mlm_index: Tensor) -> Any:
    """The head's scores of a sequence, masked-LM scores at the tokens in `mlm_index`."""
    batch = pack_sequences([(encoded.input_ids, encoded.token_type_ids)])
    batch.targets = {"mlm_index": mlm_index}
    return model.model(batch.to(model.device))
