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
from bothways.inference.engine import Question
from bothways.inference.loaded import LoadedModel
from bothways.inference.texts import Texts
from bothways.model.task_heads import EmbeddingHead
from bothways.option_checks import require_count
from bothways.progress import OnProgress, no_progress
from bothways.tasks.results import Result


@dataclass(frozen=True)
class Match(Result):
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
    model: LoadedModel, texts: Texts, normalize: bool = True, on_progress: OnProgress = no_progress
) -> Question[np.ndarray]:
    """A vector for each text, float32 `[N, H]`, of a text alone `[H]`; of length 1 with `normalize`.

    Warns of texts that were cut short. Raises UserError for pairs where the model was made for vectors of single texts.
    """
    asked = model.asked(texts, "embed", pairs=model.checkpoint.metadata.get("task") != "similar")
    vectors = yield from model.run_in_chunks(
        with_prompt(model, asked.texts),
        lambda chunk: join_segments(model.tokenizer, chunk, model.sequence_length),
        lambda chunk, encoded, progress: ask_sequence_vectors(model, encoded, normalize, progress),
        on_progress,
    )
    together = np.array(vectors, dtype=np.float32).reshape(len(vectors), model.config.hidden_size)
    found: np.ndarray = asked.given(together)
    return found


def with_prompt(model: LoadedModel, texts: Sequence[Any]) -> list[Any]:
    """The texts as they are read: behind the model's default prompt, where sentence-transformers gave it one."""
    prompt = model.checkpoint.metadata.get("prompt", "")
    return [prompt + text if isinstance(text, str) else (prompt + text[0], *text[1:]) for text in texts]


def sequence_vectors(
    model: LoadedModel, encoded: Sequence[Encoded], normalize: bool = True, on_progress: OnProgress = no_progress
) -> list[np.ndarray]:
    """A vector for each encoded sequence, float32 `[H]`, as `embed_texts`."""
    return engine.complete(ask_sequence_vectors(model, encoded, normalize, on_progress))


def ask_sequence_vectors(
    model: LoadedModel, encoded: Sequence[Encoded], normalize: bool, on_progress: OnProgress
) -> Question[list[np.ndarray]]:
    """As `sequence_vectors`."""
    pooling = model.checkpoint.metadata.get("options", {}).get("pooling", "mean")

    def split(vectors: Tensor, sequences: Sequence[Encoded], batch: PackedBatch) -> list[np.ndarray]:
        return list(vectors.float().cpu().numpy())

    embedding = model.for_prediction.with_head(EmbeddingHead(pooling, normalize))
    key = ("vectors", pooling, normalize)
    return (yield engine.Forward(embedding, split, encoded, model.device, key, on_progress=on_progress))


def similar_texts(
    model: LoadedModel, queries: Texts, texts: Texts, top_k: int = 5, on_progress: OnProgress = no_progress
) -> Question[Any]:
    """The `top_k` texts that are most like the query, most alike first, by the similarity that the model was made for;
    of many queries a list each. The texts are embedded once.

    Raises UserError for `top_k` below 1, and for a model whose vectors are compared by their distance.
    """
    require_count(top_k=top_k)
    metadata = model.checkpoint.metadata
    similarity = metadata.get("similarity", "cosine")
    if similarity not in ("cosine", "dot"):
        raise UserError(
            f"{model.checkpoint.source}: its vectors are compared by {similarity} distance (similarity_fn_name); "
            "similar ranks by cosine or dot product; take embed, and compare them yourself"
        )
    normalize = similarity == "cosine" or metadata.get("options", {}).get("normalize", True)
    asked, among = (model.asked(values, "similar", pairs=False) for values in (queries, texts))
    vectors = yield from embed_texts(model, among.texts, normalize, on_progress)
    found = yield from embed_texts(model, asked.texts, normalize)
    return asked.given([_matches(among.texts, vectors, query, top_k, similarity == "dot") for query in found])


def _matches(texts: Sequence[Any], vectors: np.ndarray, query: np.ndarray, top_k: int, dot: bool) -> list[Match]:
    """The texts of the `top_k` largest products. vectors: `[N, H]`; query: `[H]`. dot: they are not of length 1."""
    products = vectors @ query
    best = np.argsort(-products, kind="stable")[:top_k].tolist()
    if not dot:
        return [Match(texts[index], index, float(products[index])) for index in best]
    cosines = products / np.maximum(np.linalg.norm(vectors, axis=1) * np.linalg.norm(query), 1e-12)
    return [DotMatch(texts[index], index, float(cosines[index]), float(products[index])) for index in best]


def hidden_states(model: LoadedModel, texts: Texts) -> Any:
    """The last layer's hidden states, float32 `[T_i, H]` for each text, `[CLS]` and `[SEP]` included.

    Raises UserError for a text of more tokens than the position table has rows.
    """

    def split(hidden: Tensor, rows: Sequence[Encoded], batch: PackedBatch) -> Sequence[Tensor]:
        return hidden.float().cpu().split(batch.lengths.tolist())

    asked = model.asked(texts, "hidden_states")
    encoded = model.encode_whole_texts(asked.texts)
    return asked.given(engine.run_batches(model.model.encoder, split, encoded, model.device))
