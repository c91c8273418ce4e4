"""Texts as vectors, and the texts most like another.

Shapes: N texts, T_i tokens of text i, H hidden, E numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from bothways.batch import PackedBatch
from bothways.data.encoded import Encoded
from bothways.data.prompts import Prompt, prompt_targets
from bothways.errors import UserError, closest, option
from bothways.inference import engine
from bothways.inference.engine import Question
from bothways.inference.loaded import LoadedModel
from bothways.inference.texts import Texts
from bothways.model.task_heads import EmbeddingHead, vector_head
from bothways.option_checks import require_count, require_type
from bothways.progress import OnProgress, no_progress
from bothways.tasks.results import Result

# The names under which sentence-transformers looks for what stands before queries, and before what is searched.
QUERY_PROMPT = "query"
DOCUMENT_PROMPTS = ("document", "passage", "corpus")


@dataclass(frozen=True, repr=False)
class Match(Result):
    """A text that is like the query. index: its number among the texts asked, from 0. cosine: of its vector with the
    query's, -1 to 1."""

    text: str
    index: int
    cosine: float

    @property
    def ranked_by(self) -> float:
        """The figure that matches are ranked by."""
        return self.cosine


@dataclass(frozen=True, repr=False)
class DotMatch(Match):
    """A match by a model that was made for dot products. dot: that of the two vectors, by which matches are ranked."""

    dot: float

    @property
    def ranked_by(self) -> float:
        return self.dot


@dataclass(frozen=True, repr=False)
class DistanceMatch(Match):
    """A match by a model that was made for distances. distance: that of the two vectors, 0 or more, by which matches
    are ranked, the nearest first. metric: which distance, euclidean or manhattan."""

    distance: float
    metric: str

    @property
    def ranked_by(self) -> float:
        return self.distance


# (vectors `[N, E]`, a query's `[E]`) → what matches are ranked by, `[N]`, the largest first
SimilarityFunction = Callable[[np.ndarray, np.ndarray], np.ndarray]
SIMILARITY_FUNCTIONS: dict[str, SimilarityFunction] = {
    "cosine": lambda vectors, query: vectors @ query,  # of vectors of length 1
    "dot": lambda vectors, query: vectors @ query,
    "euclidean": lambda vectors, query: -np.linalg.norm(vectors - query, axis=1),
    "manhattan": lambda vectors, query: -np.abs(vectors - query).sum(1),
}


def embed_texts(
    model: LoadedModel,
    texts: Texts,
    normalize: bool = True,
    on_progress: OnProgress = no_progress,
    prompt: Prompt | None = None,
) -> Question[np.ndarray]:
    """A vector for each text, float32 `[N, E]`, of a text alone `[E]`; of length 1 with `normalize`.

    prompt: what stands before each, by default the model's own. Warns of texts that were cut short. Raises UserError
    for pairs where the model was made for vectors of single texts.
    """
    asked = model.asked(texts, "embed", pairs=model.checkpoint.metadata.get("task") != "similar")
    before = chosen_prompt(model) if prompt is None else prompt
    vectors = yield from model.run_in_chunks(
        asked.texts,
        lambda chunk: before.encode(model.tokenizer, chunk, model.sequence_length),
        lambda chunk, encoded, progress: ask_sequence_vectors(model, encoded, normalize, progress),
        on_progress,
    )
    size = head_for_vectors(model).size(model.config.hidden_size)
    together = np.array(vectors, dtype=np.float32).reshape(len(vectors), size)
    found: np.ndarray = asked.given(together)
    return found


def head_for_vectors(model: LoadedModel) -> EmbeddingHead:
    """The model's own where it was made for vectors; else the mean over the tokens."""
    pooling = model.checkpoint.metadata.get("options", {}).get("pooling")
    return vector_head(model.model) or EmbeddingHead(pooling or "mean", normalize=False)


def chosen_prompt(model: LoadedModel, prompt_name: str | None = None, prompt: str | None = None) -> Prompt:
    """What stands before texts: the prompt of a name, or a text of one's own, or else the model's default.

    Raises UserError for both, and for a name that the model has no prompt of.
    """
    state = model.checkpoint.metadata
    default, prompts = Prompt.of_state(state), state.get("prompts", {})
    if prompt is not None and prompt_name is not None:
        raise UserError(f"{option('prompt_name', prompt_name)}: {option('prompt')} is given as well; choose one")
    if prompt is not None:
        require_type("prompt", prompt, str)
        return replace(default, text=prompt)
    if prompt_name is None:
        return default
    if prompt_name not in prompts:
        there = f"{closest(str(prompt_name), prompts)}; there are {', '.join(prompts)}" if prompts else "; it has none"
        raise UserError(
            f"{option('prompt_name', prompt_name)}: {model.checkpoint.source} has no prompt of this name{there}"
        )
    return replace(default, text=prompts[prompt_name])


def _search_prompts(model: LoadedModel, prompt_name: str | None, prompt: str | None) -> tuple[Prompt, Prompt]:
    """What stands before a query, and before the texts that are searched.

    The same for both where it is asked for by name or text. Else, of a model that has a prompt for queries or for
    documents, these, as sentence-transformers' `encode_query` and `encode_document` choose them; else the default.
    """
    default = chosen_prompt(model, prompt_name, prompt)
    prompts = model.checkpoint.metadata.get("prompts", {})
    document = next((prompts[name] for name in DOCUMENT_PROMPTS if name in prompts), None)
    given = prompt_name is not None or prompt is not None
    if given or (document is None and QUERY_PROMPT not in prompts):
        return default, default
    return replace(default, text=prompts.get(QUERY_PROMPT, "")), replace(default, text=document or "")


def sequence_vectors(
    model: LoadedModel, encoded: Sequence[Encoded], normalize: bool = True, on_progress: OnProgress = no_progress
) -> list[np.ndarray]:
    """A vector for each encoded sequence, float32 `[E]`, as `embed_texts`."""
    return engine.complete(ask_sequence_vectors(model, encoded, normalize, on_progress))


def ask_sequence_vectors(
    model: LoadedModel, encoded: Sequence[Encoded], normalize: bool, on_progress: OnProgress
) -> Question[list[np.ndarray]]:
    """As `sequence_vectors`."""

    def split(vectors: Tensor, sequences: Sequence[Encoded], batch: PackedBatch) -> list[np.ndarray]:
        return list(vectors.float().cpu().numpy())

    embedding = model.for_prediction.with_head(head_for_vectors(model).normalized(normalize))
    has_targets = bool(encoded and encoded[0].targets)  # those of a prompt that is not pooled
    key = ("vectors", normalize, has_targets)
    return (yield engine.Forward(embedding, split, encoded, model.device, key, prompt_targets, on_progress))


def similar_texts(
    model: LoadedModel,
    queries: Texts,
    texts: Texts,
    top_k: int = 5,
    on_progress: OnProgress = no_progress,
    *,
    prompts: tuple[str | None, str | None] = (None, None),
) -> Question[Any]:
    """The `top_k` texts that are most like the query, most alike first, by the similarity that the model was made for;
    of many queries a list each. The texts are embedded once.

    prompts: the name of a prompt, or its text, for queries and texts, in place of those of `_search_prompts`.
    Raises UserError for `top_k` below 1, and for prompts as `chosen_prompt`.
    """
    require_count(top_k=top_k)
    of_query, of_text = _search_prompts(model, *prompts)
    similarity = model.checkpoint.metadata.get("similarity", "cosine")
    normalize = similarity == "cosine" or head_for_vectors(model).normalize
    asked, among = (model.asked(values, "similar", pairs=False) for values in (queries, texts))
    vectors = yield from embed_texts(model, among.texts, normalize, on_progress, of_text)
    found = yield from embed_texts(model, asked.texts, normalize, prompt=of_query)
    return asked.given([_matches(among.texts, vectors, query, top_k, similarity) for query in found])


def _matches(texts: Sequence[Any], vectors: np.ndarray, query: np.ndarray, top_k: int, similarity: str) -> list[Match]:
    """The `top_k` most similar texts. vectors: `[N, E]`; query: `[E]`."""
    scores = SIMILARITY_FUNCTIONS[similarity](vectors, query)
    best = np.argsort(-scores, kind="stable")[:top_k].tolist()
    if similarity == "cosine":
        return [Match(texts[index], index, float(scores[index])) for index in best]
    cosines = vectors @ query / np.maximum(np.linalg.norm(vectors, axis=1) * np.linalg.norm(query), 1e-12)
    if similarity == "dot":
        return [DotMatch(texts[index], index, float(cosines[index]), float(scores[index])) for index in best]
    return [
        DistanceMatch(texts[index], index, float(cosines[index]), float(-scores[index]), similarity) for index in best
    ]


def hidden_states(model: LoadedModel, texts: Texts) -> Any:
    """The last layer's hidden states, float32 `[T_i, H]` for each text, `[CLS]` and `[SEP]` included.

    Raises UserError for a text of more tokens than the position table has rows.
    """

    def split(hidden: Tensor, rows: Sequence[Encoded], batch: PackedBatch) -> Sequence[Tensor]:
        return hidden.float().cpu().split(batch.lengths.tolist())

    asked = model.asked(texts, "hidden_states")
    encoded = model.encode_whole_texts(asked.texts)
    return asked.given(engine.run_batches(model.model.encoder, split, encoded, model.device))
