"""How likely a text is, piece by piece, and which pieces may come next.

Shapes: T tokens of a text, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bothways.batch import PackedBatch
from bothways.data.encoded import Encoded, assemble
from bothways.errors import UserError, option
from bothways.inference.engine import Forward, Question
from bothways.inference.language import require_causal
from bothways.inference.texts import Texts
from bothways.model.lm_head import LazyLogits
from bothways.option_checks import require_count
from bothways.tasks.results import Result
from bothways.text.lines import is_unicode
from bothways.text.tokenizer import Pieces, Tokenizer

if TYPE_CHECKING:
    from bothways.inference.loaded import LoadedModel

EVERY_PIECE = -1  # in the place of a piece's id
MAX_NATS = 700  # exp(709.8) is the largest float64
Scored = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, repr=False)
class TokenProbability(Result):
    """A piece and the probability that it stands at its place: at a `[MASK]`, in a text, or behind one."""

    token: str
    probability: float


@dataclass(frozen=True, repr=False)
class TextScore(Result):
    """How likely a text is.

    log_probability: natural logarithm, the sum over its pieces; perplexity: exp of minus their mean. tokens: the pieces
    in order. next: the pieces of the word asked for behind the text; next_probability: their product, None where none
    was asked. alternatives: pieces that may come next, most likely first.
    """

    log_probability: float
    perplexity: float
    tokens: list[TokenProbability]
    next: list[TokenProbability]
    next_probability: float | None
    alternatives: list[TokenProbability]


def score_texts(model: LoadedModel, texts: Texts, next_word: str | None, top_k: int) -> Question[Any]:
    """The score of a text: by a causal model token by token from the left; by a masked model its pseudo-log-likelihood
    (Salazar et al. 2020), each piece masked together with the later pieces of its word (Kauf and Ivanova 2023). Of many
    texts a list.

    next_word: the word whose probability behind the text is wanted. top_k: pieces that may come next to tell, at least
    1. Raises UserError for a model that is no language model, and for an empty or too long text.
    """
    model.require_head("language-model", "score")
    if "causal-LM" in model.model.head.abilities:
        require_causal(model, "score")
    require_count(top_k=top_k)
    asked = model.asked(texts, "score", pairs=False)
    pieces = [_pieces_to_score(model, text, next_word) for text in asked.texts]
    model.warn_of_unknown([of_text.input_ids for of_text, _ in pieces])
    ask = _ask_causal if "causal-LM" in model.model.head.abilities else _ask_masked
    found = yield from ask(model, pieces)
    return asked.given([_score(model, *of_text, scores, top_k) for of_text, scores in zip(pieces, found, strict=True)])


def _score(model: LoadedModel, pieces: Pieces, behind: Pieces, scored: Scored, top_k: int) -> TextScore:
    """behind: the pieces of the word asked for, none where there is no such word. scored: as `_ask_causal` has it."""
    of_text, of_next, following = scored
    values, ids = following.topk(min(top_k, len(following)))
    token = model.tokenizer.token
    alternatives = zip(ids.tolist(), values.tolist(), strict=True)
    return TextScore(
        float(of_text.sum()),
        math.exp(min(-float(of_text.mean()), MAX_NATS)),
        _token_probabilities(model.tokenizer, pieces, of_text),
        _token_probabilities(model.tokenizer, behind, of_next),
        math.exp(float(of_next.sum())) if len(behind.input_ids) else None,
        [TokenProbability(token(id), probability) for id, probability in alternatives],
    )


def _pieces_to_score(model: LoadedModel, text: Any, next_word: str | None) -> tuple[Pieces, Pieces]:
    """The pieces of the text, and those of the word behind it. Raises UserError for empty ones and too long a text."""
    if next_word is not None and (not isinstance(next_word, str) or not is_unicode(next_word)):
        raise UserError(f"{option('next')} {next_word!a}: expected a word")
    pieces = model.tokenizer.encode(text, special_tokens=False)
    behind = model.tokenizer.encode(next_word or "", special_tokens=False)
    if not len(pieces.input_ids):
        raise UserError("the text is empty; give some words to score")
    if next_word is not None and not len(behind.input_ids):
        raise UserError(f"{option('next')} is empty; give the word whose probability is wanted")
    # a masked model is asked for at least one piece behind the text
    needed, table = len(pieces.input_ids) + max(1, len(behind.input_ids)) + 2, model.config.max_sequence_length
    if needed > table:
        raise UserError(f"the text is {needed:,} tokens long; the position table has {table:,} rows")
    return pieces, behind


def _token_probabilities(tokenizer: Tokenizer, pieces: Pieces, logs: Tensor) -> list[TokenProbability]:
    both = zip(pieces.input_ids.tolist(), logs.tolist(), strict=True)
    return [TokenProbability(tokenizer.token(id), math.exp(log)) for id, log in both]


def _ask_causal(model: LoadedModel, texts: Sequence[tuple[Pieces, Pieces]]) -> Question[list[Scored]]:
    """For each text and the pieces behind it: log-probabilities of the text's pieces `[T]` and of the pieces behind it,
    and the probabilities `[V]` of every piece to come right behind the text; all float64."""

    def encoded(text: Pieces, behind: Pieces) -> Encoded:
        ids = np.concatenate([[model.tokenizer.cls_id], text.input_ids, behind.input_ids])
        nothing = np.zeros_like(ids)
        return Encoded(ids, nothing, nothing, nothing, {"cut": np.array(len(text.input_ids))})

    def split(scores: LazyLogits, sequences: Sequence[Encoded], batch: PackedBatch) -> list[Scored]:
        # multiplied out a text at a time, as the scores of a batch would take a hundred times the memory of its tokens
        hidden = scores.hidden.split(batch.lengths.tolist())
        return [_scored(replace(scores, hidden=of_text), text) for of_text, text in zip(hidden, sequences, strict=True)]

    def _scored(scores: LazyLogits, text: Encoded) -> Scored:
        logs = scores.logits.double().cpu().log_softmax(-1)
        scored = logs[:-1].gather(1, torch.from_numpy(text.input_ids[1:])[:, None])[:, 0]
        cut = int(text.targets["cut"])
        return scored[:cut], scored[cut:], logs[cut].exp()

    sequences = [encoded(*of_text) for of_text in texts]
    return (yield Forward(model.in_float32, split, sequences, model.device, ("causal scores",)))


def _ask_masked(model: LoadedModel, texts: Sequence[tuple[Pieces, Pieces]]) -> Question[list[Scored]]:
    """As `_ask_causal`, but each piece sees both sides; pieces behind the text see later ones as masks only. The texts
    one after another, as each is read once a piece."""
    found = []
    for text, behind in texts:
        found.append((yield from _ask_masked_text(model, text, behind)))
    return found


def _ask_masked_text(model: LoadedModel, text: Pieces, behind: Pieces) -> Question[Scored]:
    tokenizer, cut = model.tokenizer, len(text.input_ids)
    both = np.concatenate([text.input_ids, behind.input_ids])
    with_mask = np.append(text.input_ids, tokenizer.mask_id)
    sequences = [
        *(_masked(tokenizer, text.input_ids, _rest_of_word(text, n), text.input_ids[n]) for n in range(cut)),
        *(_masked(tokenizer, both, slice(n, len(both)), both[n]) for n in range(cut, len(both))),
        _masked(tokenizer, with_mask, slice(cut, cut + 1), EVERY_PIECE),
    ]
    *logs, following = yield Forward(
        model.in_float32, _logs_at_masks, sequences, model.device, ("masked scores",), _first_masks
    )
    scored = torch.tensor(logs, dtype=torch.float64)
    return scored[:cut], scored[cut:], following.exp()


def _rest_of_word(pieces: Pieces, number: int) -> slice:
    """A piece and the later pieces of its word."""
    end = int(np.searchsorted(pieces.word_ids, pieces.word_ids[number], side="right"))
    return slice(number, end)


def _masked(tokenizer: Tokenizer, ids: np.ndarray, masked: slice, wanted: int) -> Encoded:
    """A sequence with some of its pieces masked. Targets: `first_mask`, the token of the first of them; `wanted`, the
    piece whose probability there is asked for, or `EVERY_PIECE`."""
    shown = ids.copy()
    shown[masked] = tokenizer.mask_id
    nothing = np.zeros((len(ids), 2), dtype=np.int64)
    sequence = assemble(tokenizer, [Pieces(shown, nothing, nothing[:, 0])], row=0)
    first = np.array(len(tokenizer.template.prefix) + masked.start)
    return replace(sequence, targets={"first_mask": first, "wanted": np.array(wanted)})


def _first_masks(encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
    lengths = np.array([len(sequence.input_ids) for sequence in encoded])
    begins = np.cumsum(lengths) - lengths
    return {"mlm_index": begins + np.array([sequence.targets["first_mask"] for sequence in encoded])}


def _logs_at_masks(scores: Any, encoded: Sequence[Encoded], batch: PackedBatch) -> list[Any]:
    """The log-probability of the piece that each sequence asks for, or of every piece, float64 `[V]`."""
    logs = scores.mlm.logits.double().cpu().log_softmax(-1)
    wanted = [int(sequence.targets["wanted"]) for sequence in encoded]
    return [row.clone() if id == EVERY_PIECE else float(row[id]) for row, id in zip(logs, wanted, strict=True)]
