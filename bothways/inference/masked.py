"""What a pretrained model says of masks and of sentences that follow each other."""

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

if TYPE_CHECKING:
    from bothways.inference.loaded import LoadedModel


@dataclass(frozen=True)
class Fill(TokenProbability):
    """A piece that may stand at a `[MASK]`, and its probability there."""


@torch.inference_mode()
def fill_masks(model: LoadedModel, encoded: Encoded, text: Any, top_k: int) -> list[list[Fill]]:
    """For each `[MASK]`, in order, the `top_k` likeliest pieces. Raises UserError for a text without a mask."""
    rows = np.flatnonzero(encoded.input_ids == model.tokenizer.mask_id)
    if not len(rows):
        raise UserError(f"no [MASK] in {text!r}: write [MASK] where a word is to be filled in")
    scores = _scores(model, encoded, {"mlm_index": torch.from_numpy(rows)}).mlm.logits
    probabilities, ids = scores.float().softmax(-1).topk(min(top_k, scores.shape[-1]))
    return [
        [Fill(model.tokenizer.token(index), value) for index, value in zip(row_ids, row, strict=True)]
        for row_ids, row in zip(ids.tolist(), probabilities.tolist(), strict=True)
    ]


@torch.inference_mode()
def follows(model: LoadedModel, encoded: Encoded) -> float:
    """The probability that the second sentence of a pair follows the first (`next_sentence_label` 0)."""
    scores = _scores(model, encoded, {"mlm_index": torch.zeros(0, dtype=torch.long)}).nsp
    return float(scores.float().softmax(-1)[0, 0])


def _scores(model: LoadedModel, encoded: Encoded, targets: dict[str, Tensor]) -> Any:
    batch = pack_sequences([(encoded.input_ids, encoded.token_type_ids)])
    batch.targets = targets
    return model.model(batch.to(model.device))
