"""Everything that a page shows of a model and a text, as JSON with compressed arrays.

Shapes: T tokens, H hidden, A heads, L layers. A *reading* is the text read under one mask, both ways or causal: a
page has the model's own first and then the other. (Its JSON calls them "runs".)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bothways.batch import PackedBatch
from bothways.errors import UserError
from bothways.explain.answers import ShownAnswer, shown_answer
from bothways.explain.embeddings import (
    MAX_COSINE_TOKENS,
    MAX_PLANE_TOKENS,
    Projection,
    embedding_view,
    position_view,
)
from bothways.explain.predictions import MAX_LENS_STATES, decision_of, prediction_view
from bothways.explain.record import gradient_weighted, record, rollout
from bothways.explain.tagged_words import tagged_words
from bothways.explain.tokens import tokens_of_text
from bothways.pages.arrays import ARRAY_TOLERANCE, compress_array, compress_shares
from bothways.pages.display_names import head_in_words

if TYPE_CHECKING:
    from bothways.inference.loaded import LoadedModel
    from bothways.inference.texts import Text

# How many attention weights (L × A × T²) a reading may have for each part of a page. A part may take some 10 MB: in a
# page a weight to the finest step takes 1.4 bytes and its score 2.3, one in steps of 0.001 takes 0.5, one in steps of
# 0.0019 takes 0.36 (measured: 6 layers × 12 heads, 256 tokens).
MAX_FINE_WEIGHTS = 2_000_000  # to the finest step, with their scores; 7 MB
MAX_TWO_READINGS_WEIGHTS = 8_000_000  # the text under the other mask too; 8 MB
MAX_SUMMED_WEIGHTS = 20_000_000  # in steps of 0.001, rows still sum to one, with the rollout; 10 MB
MAX_QKV_NUMBERS = 4_000_000  # in queries, keys and values (3 × L × T × H), of 2.4 bytes each; 10 MB


def page_data(
    model: LoadedModel,
    text: Text,
    *,
    others: Sequence[str] = (),
    word: str | None = None,
    anchors: Sequence[str] = (),
    projection: Projection = "pca",
) -> dict[str, Any]:
    """A page of one text, or of a pair, is made of this.

    others: sentences to show beside it in the view of embeddings; word: of which to follow the way through the layers
    in each; anchors: words that it is compared with; projection: how vectors come to a plane, their principal
    components or UMAP.
    Raises UserError for a text without words, or longer than the position table.
    """
    first, second = (text, None) if isinstance(text, str) else text
    tokenizer, config = model.tokenizer, model.config
    parts = [tokenizer.encode(part) for part in (first, second) if part is not None]
    if not all(len(pieces.input_ids) for pieces in parts):
        raise UserError("explain: the text is empty")
    batch, tokens, words = tokens_of_text(tokenizer, parts)
    if batch.num_tokens > config.max_sequence_length:
        raise UserError(
            f"explain: the text is {batch.num_tokens} tokens long; the position table has "
            f"{config.max_sequence_length} rows"
        )
    tagged = tagged_words(model, [first] if second is None else [first, second], parts)
    if tagged is not None:
        batch.targets["word_index"] = torch.tensor(tagged[0], dtype=torch.int64)
    batch = batch.to(model.device)
    num_weights = config.num_hidden_layers * config.num_attention_heads * batch.num_tokens**2
    notes = _notes(model, batch.num_tokens, num_weights)
    answer = shown_answer(model, batch, text, parts)
    if answer is not None and answer.note:
        notes.append(answer.note)
    readings = [_reading(model, batch, config.is_decoder, answer)]
    if num_weights <= MAX_TWO_READINGS_WEIGHTS:
        readings.append(_reading(model, batch, not config.is_decoder, answer))
    sentences = [first, *([second] if second else []), *others]
    embeddings = embedding_view(model, sentences, word, anchors, projection)
    if len(embeddings["tokens"]) > MAX_COSINE_TOKENS:
        notes.append(
            f"cosines of tokens are shown of up to {MAX_COSINE_TOKENS} of them, points of up to {MAX_PLANE_TOKENS}"
        )
    if any(
        len(pieces.input_ids) + tokenizer.num_special_tokens(1) > model.sequence_length
        for pieces in tokenizer.encode_batch(sentences)
    ):
        notes.append(f"vectors of sentences are made of their first {model.sequence_length} tokens")
    return {
        "format": 1,
        "title": first if second is None else f"{first} | {second}",
        "model": _facts(model),
        "text": {"a": first, "b": second},
        "notes": notes,
        "tokens": tokens,
        "words": words,
        "runs": readings,
        "embeddings": embeddings,
        "positions": position_view(model.model.encoder),
        "predictions": prediction_view(model, batch, tokens, words, answer, tagged[1] if tagged else None),
        "checkpoints": None,
    }


def _notes(model: LoadedModel, num_tokens: int, num_weights: int) -> list[str]:
    """The page says what it leaves out of a text of this length."""
    config = model.config
    qkv_numbers = 3 * config.num_hidden_layers * num_tokens * config.hidden_size
    left_out = (
        (qkv_numbers > MAX_QKV_NUMBERS, "too long a text for the view step by step"),
        (num_weights > MAX_FINE_WEIGHTS, "scores before the softmax are left out, weights are rounded to 0.001"),
        (num_weights > MAX_TWO_READINGS_WEIGHTS, "the other mask and gradient-weighted attention are left out"),
        (
            num_weights > MAX_SUMMED_WEIGHTS,
            "rollout is left out, and weights below 0.001 are 0, so that rows may sum to less than 1",
        ),
        ((config.num_hidden_layers + 1) * num_tokens > MAX_LENS_STATES, "too long a text for the logit lens"),
    )
    return [note for applies, note in left_out if applies]


def _facts(model: LoadedModel) -> dict[str, Any]:
    """The title, and the line under the text, tell this of the model."""
    config = model.config
    return {
        "name": model.checkpoint.source,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "hidden_size": config.hidden_size,
        "vocab_size": config.vocab_size,
        "head": head_in_words(type(model.model.head).__name__, len(model.labels)),
        "causal": config.is_decoder,
        "parameters": sum(parameter.numel() for parameter in model.model.parameters()),
    }


def _reading(model: LoadedModel, batch: PackedBatch, causal: bool, answer: ShownAnswer | None) -> dict[str, Any]:
    """The text is read under one mask: attention of every layer and head, and the queries, keys and values."""
    with torch.inference_mode():
        recorded = record(model.model.encoder, batch, causal)
    num_weights = sum(weights.numel() for weights in recorded.weights)
    qkv_numbers = 3 * len(recorded.hidden) * recorded.embeddings.numel()
    own_mask = causal == model.config.is_decoder
    return {
        "name": "left to right" if causal else "both ways",
        "causal": causal,
        "weights": compress_weights(recorded.weights, num_weights),
        "scores": _compress_layers(recorded.scores) if num_weights <= MAX_FINE_WEIGHTS else None,
        "rollout": (
            compress_weights(rollout(recorded.weights), num_weights) if num_weights <= MAX_SUMMED_WEIGHTS else None
        ),
        "gradient": (
            _gradients(model, batch, answer) if own_mask and num_weights <= MAX_TWO_READINGS_WEIGHTS else None
        ),
        **{
            name: _compress_layers(getattr(recorded, name)) if qkv_numbers <= MAX_QKV_NUMBERS else None
            for name in ("queries", "keys", "values")
        },
    }


def compress_weights(weights: Sequence[Tensor], num_weights: int) -> list[dict[str, Any]]:
    """Attention weights are compressed layer by layer, the more coarsely the more there are on the page.

    weights: L of `[A, T, T]`, or of `[T, T]`. num_weights: how many the page has, of this and what else is counted
    with it.
    """
    if num_weights <= MAX_FINE_WEIGHTS:
        return _compress_layers(weights)
    if num_weights <= MAX_SUMMED_WEIGHTS:
        return [compress_shares(_as_numpy(layer)) for layer in weights]
    # rounding to the nearest step is off by half a step at most: a little under the tolerance
    return [compress_array(_as_numpy(layer), 1.9 * ARRAY_TOLERANCE) for layer in weights]


def _compress_layers(layers: Sequence[Tensor]) -> list[dict[str, Any]]:
    return [compress_array(_as_numpy(layer)) for layer in layers]


def _gradients(model: LoadedModel, batch: PackedBatch, answer: ShownAnswer | None) -> list[dict[str, Any]] | None:
    """Gradient-weighted attention for what the model decides, L of `[T, T]`, as a share of its largest number; None
    where the model decides nothing."""
    decision = decision_of(model, batch, answer)
    if decision is None:
        return None
    with torch.enable_grad():
        recorded = record(model.model.encoder, batch)
        decision.score(recorded.hidden[-1]).backward()
    products = gradient_weighted(recorded.weights)
    model.model.zero_grad(set_to_none=True)
    largest = max(float(product.max()) for product in products) or 1.0
    return _compress_layers([product / largest for product in products])


def _as_numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()
