"""Words and positions as vectors: on a plane, by their cosines, and one word's way through the layers.

Shapes: P points, H hidden, S states (embeddings and every layer's output), V vocabulary.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bothways.errors import TruncationWarning, UnknownTokensWarning, UserError, install_command, option
from bothways.explain.record import record
from bothways.explain.tokens import tokens_of_text
from bothways.inference.engine import complete
from bothways.inference.vectors import embed_texts
from bothways.model.embeddings import sinusoids
from bothways.model.encoder import Encoder
from bothways.pages.arrays import compress_array

if TYPE_CHECKING:
    from bothways.inference.loaded import LoadedModel

MAX_PLANE_TOKENS = 200  # points on the plane: of more, most names find no room
MAX_COSINE_TOKENS = 64  # 64² cosines in each of 13 states take 130 KB; also the pieces whose neighbours are looked up
NUM_NEIGHBOURS = 6  # of a piece in the vocabulary: a line of the table
POSITION_TABLE_COLUMNS = 64  # of H: 512 positions × 64 columns take 80 KB, and a cell is still wide enough to see
MAX_COMPARED_POSITIONS = 128  # evenly spread over the table: 128² cosines take 40 KB

Projection = Literal["pca", "umap"]


def embedding_view(
    model: LoadedModel, sentences: Sequence[str], word: str | None, anchors: Sequence[str], projection: Projection
) -> dict[str, Any]:
    """The view of embeddings has the tokens of the sentences in every state on a plane (one for all states), the
    cosines among them and among the sentences, and the neighbours of each piece in the vocabulary.

    word: the word to follow from state to state, anchors: the words that it is compared with. Raises UserError for a
    sentence longer than the position table, and as `_word_paths` does.
    """
    tokens, states = _states_of_tokens(model, sentences)
    paths, spelled = _word_paths(model, tokens, states, word, anchors)
    tokens, states = tokens[:MAX_PLANE_TOKENS], states[:, :MAX_PLANE_TOKENS]
    flat = states.flatten(0, 1)
    points = (_principal_plane(flat) if projection == "pca" else _umap_plane(flat)).unflatten(0, states.shape[:2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)  # the page has a note of it
        warnings.simplefilter("ignore", UnknownTokensWarning)  # `explain` has warned of the text itself
        vectors = torch.from_numpy(complete(embed_texts(model, list(sentences))))
    unit = F.normalize(states, dim=-1)[:, :MAX_COSINE_TOKENS]
    return {
        "sentences": list(sentences),
        "tokens": tokens,
        "points": [compress_array(of_state.numpy()) for of_state in points],
        "word": spelled,
        "anchors": list(anchors),
        "paths": paths,
        "cosines": compress_array((unit @ unit.mT).numpy()) if 0 < len(tokens) <= MAX_COSINE_TOKENS else None,
        "sentence_points": _principal_plane(vectors).tolist(),
        "sentence_cosines": (vectors @ vectors.T).tolist(),
        "neighbours": _neighbours(model, tokens),
    }


def _principal_plane(vectors: Tensor) -> Tensor:
    """Vectors `[P, H]` come to the plane of their two principal components, `[P, 2]`."""
    centred = vectors - vectors.mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    points = centred @ axes[:2].T
    return F.pad(points, (0, 2 - points.shape[1]))


def _umap_plane(vectors: Tensor) -> Tensor:
    """Vectors `[P, H]` come to a plane `[P, 2]` that keeps neighbours together (McInnes, Healy and Melville 2018),
    seeded. Raises UserError where umap-learn is not installed."""
    try:
        from umap import UMAP
    except ImportError as error:
        raise UserError(
            f"{option('projection', 'umap')} needs umap-learn ({error}): {install_command('umap')}"
        ) from error
    neighbours = min(15, len(vectors) - 1)
    reducer = UMAP(n_components=2, n_neighbors=neighbours, metric="cosine", random_state=0, n_jobs=1)
    return torch.from_numpy(np.asarray(reducer.fit_transform(vectors.numpy()), dtype=np.float32))


def _states_of_tokens(model: LoadedModel, sentences: Sequence[str]) -> tuple[list[dict[str, Any]], Tensor]:
    """The tokens of all sentences, special ones left out: of each what the page tells, and their states `[S, P, H]`.
    Raises UserError for a sentence longer than the position table."""
    shown: list[dict[str, Any]] = []
    states = []
    for number, sentence in enumerate(sentences):
        batch, tokens, words = tokens_of_text(model.tokenizer, [model.tokenizer.encode(sentence)])
        if len(tokens) > model.config.max_sequence_length:
            raise UserError(f"explain: {sentence[:40]!r}… is longer than the position table")
        with torch.inference_mode():
            of_sentence = torch.stack(record(model.model.encoder, batch.to(model.device)).states).float().cpu()
        kept = [index for index, token in enumerate(tokens) if not token["special"]]
        for token in (tokens[index] for index in kept):
            shown.append({"sentence": number, "token": token["token"], "word": words[token["word"]]})
        states.append(of_sentence[:, kept])
    return shown, torch.cat(states, 1)


def _word_paths(
    model: LoadedModel, tokens: Sequence[dict[str, Any]], states: Tensor, word: str | None, anchors: Sequence[str]
) -> tuple[list[dict[str, Any]], str | None]:
    """For each sentence that has the word, its cosine with each anchor in every state, `[S, anchors]`, and the word as
    the vocabulary spells it; an anchor's state is that of the word alone. Raises UserError for a word that is in none
    of the sentences, or is several, and for words that the vocabulary does not know."""
    if word is None:
        return [], None
    spelled = _spelled(model, word, anchors)
    found = [index for index, token in enumerate(tokens) if token["word"] == spelled]
    if not found:
        raise UserError(f"{option('word', word)}: in none of the sentences")
    if not anchors:
        return [], spelled
    of_anchors = []
    for anchor in anchors:
        anchor_tokens, anchor_states = _states_of_tokens(model, [anchor])
        if not anchor_tokens:
            raise UserError(f"{option('anchors', anchor)}: no word in it")
        of_anchors.append(anchor_states.mean(1))
    targets = F.normalize(torch.stack(of_anchors, 1), dim=-1)
    paths = []
    for sentence in sorted({tokens[index]["sentence"] for index in found}):
        pieces = [index for index in found if tokens[index]["sentence"] == sentence]
        own = F.normalize(states[:, pieces].mean(1), dim=-1)
        paths.append({"sentence": sentence, "cosines": compress_array((targets @ own[:, :, None])[..., 0].numpy())})
    return paths, spelled


def _spelled(model: LoadedModel, word: str, anchors: Sequence[str]) -> str:
    """The word as the vocabulary spells it. Raises UserError for several words, and for a word or an anchor that the
    vocabulary does not know."""
    tokenizer = model.tokenizer
    for name, text in [("word", word), *(("anchors", anchor) for anchor in anchors)]:
        if tokenizer.unk_id in tokenizer.encode(text, special_tokens=False).input_ids:
            raise UserError(f"{option(name, text)}: the vocabulary does not know it")
    pieces = tokenizer.encode(word, special_tokens=False)
    if len(set(pieces.word_ids.tolist())) != 1:
        raise UserError(f"{option('word', word)}: expected one word, as the vocabulary parts them")
    return "".join(tokenizer.shown(id) for id in pieces.input_ids)


def _neighbours(model: LoadedModel, tokens: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The nearest pieces of each piece by the cosine of their rows in the token table."""
    tokenizer = model.tokenizer
    pieces = list(dict.fromkeys(token["token"] for token in tokens))[:MAX_COSINE_TOKENS]
    table = F.normalize(model.model.encoder.embeddings.token.weight.detach().float().cpu(), dim=-1)
    own_ids = torch.tensor([tokenizer.id(piece) or 0 for piece in pieces], dtype=torch.long)
    cosines = table[own_ids] @ table[: tokenizer.vocab_size].T
    cosines[:, list(tokenizer.special_ids)] = -1
    cosines.scatter_(1, own_ids[:, None], -1)
    values, ids = cosines.topk(NUM_NEIGHBOURS)
    neighbours = []
    for piece, row_ids, row_values in zip(pieces, ids.tolist(), values.tolist(), strict=True):
        near = [(tokenizer.token(id), value) for id, value in zip(row_ids, row_values, strict=True)]
        neighbours.append({"token": piece, "near": near})
    return neighbours


def position_view(encoder: Encoder) -> dict[str, Any] | None:
    """The view of positions has the first columns of the model's table, those of the sinusoidal table, and the cosines
    of positions; None for a model without such a table."""
    position = encoder.embeddings.position
    if position is None:
        return None
    table = position.weight[getattr(position, "offset", 0) :].detach().float().cpu()
    spread = np.linspace(0, len(table) - 1, min(MAX_COMPARED_POSITIONS, len(table)))
    rows = np.unique(spread.round().astype(int)).tolist()
    unit = F.normalize(table[rows], dim=-1)
    return {
        "kind": encoder.config.positions,
        "rows": len(table),
        "table": compress_array(table[:, :POSITION_TABLE_COLUMNS].numpy()),
        "similarity": compress_array((unit @ unit.T).numpy()),
        "similarity_rows": rows,
        "sinusoidal": compress_array(sinusoids(len(table), table.shape[1])[:, :POSITION_TABLE_COLUMNS].numpy()),
    }
