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

from bothways.errors import TruncationWarning, UserError
from bothways.explain.record import record
from bothways.inference.vectors import embed_texts
from bothways.model.embeddings import sinusoids
from bothways.model.encoder import Encoder
from bothways.pages.arrays import compress_array

if TYPE_CHECKING:
    from bothways.inference.loaded import LoadedModel

POINTS, COMPARED, NEAR = 200, 64, 6  # tokens on the plane, tokens in the table of cosines, neighbours of a token
COLUMNS, SIMILAR = 64, 128  # of the tables of positions, and positions that are compared


Projection = Literal["pca", "umap"]


def embedding_view(
    model: LoadedModel, sentences: Sequence[str], word: str | None, anchors: Sequence[str], projection: Projection
) -> dict[str, Any]:
    """The tokens of the sentences in every state, on a plane (one for all states), the cosines among them and among the
    sentences, and the neighbours of each piece in the vocabulary."""
    told, states = _tokens(model, sentences)
    paths, shown = _paths(model, told, states, word, anchors)
    told, states = told[:POINTS], states[:, :POINTS]
    flat = states.flatten(0, 1)
    plane = (_plane(flat) if projection == "pca" else _umap(flat)).unflatten(0, states.shape[:2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)  # the page has a note of it
        vectors = torch.from_numpy(embed_texts(model, list(sentences)))
    near = F.normalize(states, dim=-1)[:, :COMPARED]
    return {
        "sentences": list(sentences),
        "tokens": told,
        "points": [compress_array(one.numpy()) for one in plane],
        "word": shown,
        "anchors": list(anchors),
        "paths": paths,
        "cosines": compress_array((near @ near.mT).numpy()) if 0 < len(told) <= COMPARED else None,
        "sentence_points": _plane(vectors).tolist(),
        "sentence_cosines": (vectors @ vectors.T).tolist(),
        "neighbours": _neighbours(model, told),
    }


def _plane(vectors: Tensor) -> Tensor:
    """`[N, H]` in their two principal components `[N, 2]`."""
    centred = vectors - vectors.mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    points = centred @ axes[:2].T
    return F.pad(points, (0, 2 - points.shape[1]))


def _umap(vectors: Tensor) -> Tensor:
    """`[N, H]` on a plane that keeps neighbours together (McInnes, Healy and Melville 2018), `[N, 2]`; always the same.
    Raises UserError where umap-learn is not installed."""
    try:
        from umap import UMAP
    except ImportError as error:
        raise UserError(f"--projection umap needs umap-learn ({error}): pip install 'bothways[umap]'") from error
    neighbours = min(15, len(vectors) - 1)
    placed = UMAP(n_components=2, n_neighbors=neighbours, metric="cosine", random_state=0, n_jobs=1)
    return torch.from_numpy(np.asarray(placed.fit_transform(vectors.numpy()), dtype=np.float32))


def _tokens(model: LoadedModel, sentences: Sequence[str]) -> tuple[list[dict[str, Any]], Tensor]:
    """What is told of each token of each sentence, special ones left out, and their states `[S, P, H]`."""
    from bothways.explain.page_data import read

    told: list[dict[str, Any]] = []
    states = []
    for number, sentence in enumerate(sentences):
        batch, tokens, words = read(model.tokenizer, [model.tokenizer.encode(sentence)])
        if len(tokens) > model.config.max_position_embeddings:
            raise UserError(f"explain: {sentence[:40]!r}… is longer than the position table")
        with torch.inference_mode():
            seen = torch.stack(record(model.model.encoder, batch.to(model.device)).states).float().cpu()
        kept = [n for n, token in enumerate(tokens) if not token["special"]]
        told += [{"sentence": number, "token": tokens[n]["token"], "word": words[tokens[n]["word"]]} for n in kept]
        states.append(seen[:, kept])
    return told, torch.cat(states, 1)


def _paths(
    model: LoadedModel, told: Sequence[dict[str, Any]], states: Tensor, word: str | None, anchors: Sequence[str]
) -> tuple[list[dict[str, Any]], str | None]:
    """For each sentence that has the word, its cosine with each anchor in every state, `[S, anchors]`, and the word as
    the vocabulary spells it; an anchor's state is that of the word alone. Raises UserError for a word that is in none
    of the sentences, or is several, and for words that the vocabulary does not know."""
    if word is None:
        return [], None
    tokenizer = model.tokenizer
    for name, asked in [("--word", word), *(("--anchors", anchor) for anchor in anchors)]:
        if tokenizer.unk_id in tokenizer.encode(asked, special_tokens=False).input_ids:
            raise UserError(f"{name} {asked}: the vocabulary does not know it")
    pieces = tokenizer.encode(word, special_tokens=False)
    wanted = "".join(tokenizer.token(id).removeprefix("##") for id in pieces.input_ids)
    if len(set(pieces.word_ids.tolist())) != 1:
        raise UserError(f"--word {word}: expected one word, as the vocabulary parts them")
    found = [n for n, one in enumerate(told) if one["word"] == wanted]
    if not found:
        raise UserError(f"--word {word}: in none of the sentences")
    if not anchors:
        return [], wanted
    of_anchors = []
    for anchor in anchors:
        one, seen = _tokens(model, [anchor])
        if not one:
            raise UserError(f"--anchors {anchor!r}: no word in it")
        of_anchors.append(seen.mean(1))
    targets = F.normalize(torch.stack(of_anchors, 1), dim=-1)
    paths = []
    for sentence in sorted({told[n]["sentence"] for n in found}):
        rows = [n for n in found if told[n]["sentence"] == sentence]
        own = F.normalize(states[:, rows].mean(1), dim=-1)
        paths.append({"sentence": sentence, "cosines": compress_array((targets @ own[:, :, None])[..., 0].numpy())})
    return paths, wanted


def _neighbours(model: LoadedModel, told: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The nearest pieces of each piece by the cosine of their rows in the token table."""
    tokenizer = model.tokenizer
    pieces = list(dict.fromkeys(one["token"] for one in told))[:COMPARED]
    table = F.normalize(model.model.encoder.embeddings.token.weight.detach().float().cpu(), dim=-1)
    own = torch.tensor([tokenizer.id(piece) or 0 for piece in pieces], dtype=torch.long)
    cosines = table[own] @ table[: tokenizer.vocab_size].T
    cosines[:, list(tokenizer.special_ids)] = -1
    cosines.scatter_(1, own[:, None], -1)
    values, ids = cosines.topk(NEAR)
    near = [
        [(tokenizer.token(id), value) for id, value in zip(row.tolist(), of.tolist(), strict=True)]
        for row, of in zip(ids, values, strict=True)
    ]
    return [{"token": piece, "near": found} for piece, found in zip(pieces, near, strict=True)]


def position_view(encoder: Encoder) -> dict[str, Any]:
    """The model's table of positions (its first columns), the sinusoidal one, and the cosines of positions."""
    table = encoder.embeddings.position.weight.detach().float().cpu()
    rows = np.unique(np.linspace(0, len(table) - 1, min(SIMILAR, len(table))).round().astype(int))
    unit = F.normalize(table[rows.tolist()], dim=-1)
    return {
        "kind": encoder.config.positions,
        "rows": len(table),
        "table": compress_array(table[:, :COLUMNS].numpy()),
        "similarity": compress_array((unit @ unit.T).numpy()),
        "similarity_rows": rows.tolist(),
        "sinusoidal": compress_array(sinusoids(len(table), table.shape[1])[:, :COLUMNS].numpy()),
    }
