"""Everything that a page shows of a model and a text, as JSON with packed arrays.

Shapes: T tokens, H hidden, A heads, L layers, P points (tokens of several sentences).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bothways.batch import PackedBatch, pack_sequences
from bothways.errors import UserError
from bothways.explain.answers import ShownAnswer, shown_answer
from bothways.explain.embeddings import COMPARED, POINTS, Projection, embedding_view, position_view
from bothways.explain.predictions import MAX_LENS_STATES, decision_of, prediction_view
from bothways.explain.record import Record, gradient_weighted, record, rollout
from bothways.pages.arrays import TOLERANCE, compress_array, compress_shares
from bothways.text.tokenizer import Pieces, Tokenizer

if TYPE_CHECKING:
    from bothways.inference.loaded import LoadedModel
    from bothways.inference.texts import Text

# Weights of a run up to which a page has: them to the finest step, with their scores; the same text under the other
# mask; them in steps of a thousandth whose rows sum to one, with their rollout. Beyond, steps are of two thousandths.
FINE, TWICE, SUMMED = 2_000_000, 8_000_000, 20_000_000
VECTORS = 4_000_000  # numbers in queries, keys and values that a page takes


def page_data(
    model: LoadedModel,
    text: Text,
    *,
    others: Sequence[str] = (),
    word: str | None = None,
    anchors: Sequence[str] = (),
    projection: Projection = "pca",
) -> dict[str, Any]:
    """What the page of one text, or of a pair, is made of.

    others: sentences to show beside it in the view of embeddings; word: of which to follow the way through the layers
    in each; anchors: words that it is compared with; projection: how vectors come to a plane, their principal
    components or UMAP.
    Raises UserError for a text without words, or longer than the position table.
    """
    first, second = (text, None) if isinstance(text, str) else text
    tokenizer, config = model.tokenizer, model.config
    pieces = [tokenizer.encode(part) for part in (first, second) if part is not None]
    if not all(len(one.input_ids) for one in pieces):
        raise UserError("explain: the text is empty")
    batch, tokens, words = read(tokenizer, pieces)
    if batch.num_tokens > config.max_position_embeddings:
        raise UserError(
            f"explain: the text is {batch.num_tokens} tokens long; the position table has "
            f"{config.max_position_embeddings} rows"
        )
    batch = batch.to(model.device)
    size = config.num_hidden_layers * config.num_attention_heads * batch.num_tokens**2
    notes = _notes(model, batch.num_tokens, size)
    answer = shown_answer(model, batch, text, pieces)
    if answer is not None and answer.note:
        notes.append(answer.note)
    runs = [_run(model, batch, config.is_decoder, size, answer)]
    if size <= TWICE:
        runs.append(_run(model, batch, not config.is_decoder, size, answer))
    sentences = [first, *([second] if second else []), *others]
    embeddings = embedding_view(model, sentences, word, anchors, projection)
    if len(embeddings["tokens"]) > COMPARED:
        notes.append(f"cosines of tokens are shown of up to {COMPARED} of them, points of up to {POINTS}")
    if any(len(one.input_ids) + 2 > model.sequence_length for one in tokenizer.encode_batch(sentences)):
        notes.append(f"vectors of sentences are made of their first {model.sequence_length} tokens")
    return {
        "format": 1,
        "title": first if second is None else f"{first} | {second}",
        "model": _facts(model),
        "text": {"a": first, "b": second},
        "notes": notes,
        "tokens": tokens,
        "words": words,
        "runs": runs,
        "embeddings": embeddings,
        "positions": position_view(model.model.encoder),
        "predictions": prediction_view(model, batch, tokens, words, answer),
        "checkpoints": None,
    }


def _notes(model: LoadedModel, tokens: int, size: int) -> list[str]:
    """What a page of so many tokens and weights leaves out."""
    config = model.config
    vectors = 3 * config.num_hidden_layers * tokens * config.hidden_size
    left_out = (
        (vectors > VECTORS, "too long a text for the view step by step"),
        (size > FINE, "scores before the softmax are left out, weights are rounded to 0.001"),
        (size > TWICE, "the other mask and gradient-weighted attention are left out"),
        (size > SUMMED, "rollout is left out, and weights below 0.001 are 0, so that rows may sum to less than 1"),
        ((config.num_hidden_layers + 1) * tokens > MAX_LENS_STATES, "too long a text for the logit lens"),
    )
    return [note for applies, note in left_out if applies]


def read(tokenizer: Tokenizer, segments: Sequence[Pieces]) -> tuple[PackedBatch, list[dict[str, Any]], list[str]]:
    """`[CLS] a [SEP] b [SEP]` as a batch of one, what is to be told of each token, and the words' texts."""
    special = {tokenizer.cls_id: "[CLS]", tokenizer.sep_id: "[SEP]", tokenizer.mask_id: "[MASK]"}
    ids: list[int] = [tokenizer.cls_id]
    types, of_word = [0], [-1]
    words: list[str] = []
    for number, pieces in enumerate(segments):
        first = len(words)
        for id, own in zip(pieces.input_ids.tolist(), pieces.word_ids.tolist(), strict=True):
            if first + own >= len(words):
                words.append("")
            words[first + own] += tokenizer.token(id).removeprefix("##")
            ids.append(id)
            types.append(number)
            of_word.append(first + own)
        ids.append(tokenizer.sep_id)
        types.append(number)
        of_word.append(-1)
    tokens = [
        {
            "token": tokenizer.token(id), "id": id, "position": position, "segment": segment, "word": word,
            "special": word < 0 or id in special, "unknown": id == tokenizer.unk_id,
        }
        for position, (id, segment, word) in enumerate(zip(ids, types, of_word, strict=True))
    ]  # fmt: skip
    return pack_sequences([(np.array(ids), np.array(types))]), tokens, words


def _facts(model: LoadedModel) -> dict[str, Any]:
    config = model.config
    return {
        "name": model.checkpoint.source,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "hidden_size": config.hidden_size,
        "vocab_size": config.vocab_size,
        "head": type(model.model.head).__name__,
        "causal": config.is_decoder,
        "parameters": sum(parameter.numel() for parameter in model.model.parameters()),
    }


def _run(model: LoadedModel, batch: PackedBatch, causal: bool, size: int, answer: ShownAnswer | None) -> dict[str, Any]:
    """One way of reading the text: attention of every layer and head."""
    with torch.inference_mode():
        seen = record(model.model.encoder, batch, causal)
    vectors = 3 * len(seen.hidden) * seen.embeddings.numel() <= VECTORS
    own = causal == model.config.is_decoder
    return {
        "name": "left to right" if causal else "both ways",
        "causal": causal,
        "weights": compress_weights(seen.weights, size),
        "scores": [compress_array(_numbers(one)) for one in seen.scores] if size <= FINE else None,
        "rollout": compress_weights(rollout(seen.weights), size) if size <= SUMMED else None,
        "gradient": _gradients(model, batch, answer) if own and size <= TWICE else None,
        **{
            name: [compress_array(_numbers(one)) for one in getattr(seen, name)] if vectors else None
            for name in ("queries", "keys", "values")
        },
    }


def compress_weights(weights: Sequence[Tensor], size: int) -> list[dict[str, Any]]:
    """Attention weights by layer; size: how many there are in all, of which the step follows."""
    if size > SUMMED:
        return [compress_array(_numbers(one), 1.9 * TOLERANCE) for one in weights]
    return [compress_array(_numbers(one)) if size <= FINE else compress_shares(_numbers(one)) for one in weights]


def _gradients(model: LoadedModel, batch: PackedBatch, answer: ShownAnswer | None) -> list[dict[str, Any]] | None:
    """Gradient-weighted attention for what the model decides; None where it decides nothing."""
    decision = decision_of(model, batch, answer)
    if decision is None:
        return None
    with torch.enable_grad():
        seen: Record = record(model.model.encoder, batch)
        decision.score(seen.hidden[-1]).backward()
    products = gradient_weighted(seen.weights)
    model.model.zero_grad(set_to_none=True)
    highest = max(float(one.max()) for one in products) or 1.0
    return [compress_array(_numbers(one / highest)) for one in products]


def _numbers(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()
