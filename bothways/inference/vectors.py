"""Texts as vectors, and the texts most like another.

Shapes: N texts, T_i tokens of text i, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from bothways.batch import PackedBatch
from bothways.data.encoded import Encoded, join_segments
from bothways.errors import UserError
from bothways.inference import engine
from bothways.inference.loaded import LoadedModel
from bothways.inference.texts import Text, listed_texts
from bothways.model.heads import EmbeddingHead
from bothways.option_checks import require_at_least
from bothways.progress import OnProgress, no_progress


@dataclass(frozen=True)
class Match:
    """A text that is like the query. index: its number among the texts asked, from 0. cosine: of its vector with the
    query's, -1 to 1."""

    text: str
    index: int
    cosine: float


@dataclass(frozen=True)
class DotMatch(Match):
    """A match by a model that was made for dot products. dot: that of the two vectors, by which matches are ranked."""

    dot: float


def embed_texts(
    model: LoadedModel, texts: str | Sequence[str], normalize: bool = True, on_progress: OnProgress = no_progress
) -> np.ndarray:
    """A vector for each text, float32 `[N, H]`, of length 1 with `normalize`. Warns of texts that were cut short."""
    vectors = model.run_in_chunks(
        with_prompt(model, model.checked_texts(listed_texts(texts))),
        lambda chunk: join_segments(model.tokenizer, chunk, model.sequence_length),
        lambda chunk, encoded, progress: sequence_vectors(model, encoded, normalize, progress),
        on_progress,
    )
    return np.array(vectors, dtype=np.float32).reshape(len(vectors), model.config.hidden_size)


def with_prompt(model: LoadedModel, texts: Sequence[Any]) -> list[Any]:
    """The texts as they are read: behind the model's default prompt, where sentence-transformers gave it one."""
    prompt = model.checkpoint.metadata.get("prompt", "")
    return [prompt + text if isinstance(text, str) else (prompt + text[0], *text[1:]) for text in texts]


def sequence_vectors(
    model: LoadedModel, encoded: Sequence[Encoded], normalize: bool = True, on_progress: OnProgress = no_progress
) -> list[np.ndarray]:
    """A vector for each encoded sequence, float32 `[H]`, as `embed_texts`."""
    pooling = model.checkpoint.metadata.get("options", {}).get("pooling", "mean")

    def split(vectors: Tensor, sequences: Sequence[Encoded], batch: PackedBatch) -> list[np.ndarray]:
        return list(vectors.float().cpu().numpy())

    embedding = model.for_prediction.with_head(EmbeddingHead(pooling, normalize))
    return engine.run_batches(embedding, split, encoded, model.device, on_progress=on_progress)


def similar_texts(
    model: LoadedModel, query: str, texts: Sequence[str], top_k: int, on_progress: OnProgress
) -> list[Match]:
    """The `top_k` texts that are most like the query, most alike first, by the similarity that the model was made for.

    Raises UserError for `top_k` below 1, and for a model whose vectors are compared by their distance.
    """
    require_at_least(1, top_k=top_k)
    metadata = model.checkpoint.metadata
    similarity = metadata.get("similarity", "cosine")
    if similarity not in ("cosine", "dot"):
        raise UserError(
            f"{model.checkpoint.source}: its vectors are compared by {similarity} distance (similarity_fn_name); "
            "similar ranks by cosine or dot product; take embed, and compare them yourself"
        )
    normalize = similarity == "cosine" or metadata.get("options", {}).get("normalize", True)
    listed = listed_texts(texts)
    vectors, asked = embed_texts(model, listed, normalize, on_progress), embed_texts(model, query, normalize)[0]
    products = vectors @ asked
    best = np.argsort(-products, kind="stable")[:top_k].tolist()
    if similarity == "cosine":
        return [Match(listed[index], index, float(products[index])) for index in best]
    lengths = np.maximum(np.linalg.norm(vectors, axis=1) * np.linalg.norm(asked), 1e-12)
    cosines = products / lengths
    return [DotMatch(listed[index], index, float(cosines[index]), float(products[index])) for index in best]


def hidden_states(model: LoadedModel, texts: Text | Sequence[Text]) -> list[Tensor]:
    """The last layer's hidden states, float32 `[T_i, H]` for each text, `[CLS]` and `[SEP]` included.

    Raises UserError for a text of more tokens than the position table has rows.
    """

    def split(hidden: Tensor, rows: Sequence[Encoded], batch: PackedBatch) -> Sequence[Tensor]:
        return hidden.float().cpu().split(batch.lengths.tolist())

    encoded = model.encode_whole_texts(model.checked_texts(texts))
    return engine.run_batches(model.model.encoder, split, encoded, model.device)
