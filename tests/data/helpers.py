"""What the tests of this folder are made of: documents whose tokens can be told apart, examples with masks."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st

from bothways.batch import PackedBatch
from bothways.data.masking import MaskedExamples, Masker, Masking
from bothways.data.sentence_pairs import Pairing
from bothways.data.store import Chunk, TokenStore

Documents = list[list[int]]  # the lengths of each document's sentences


def documents_of(longest_sentence: int = 40) -> st.SearchStrategy[Documents]:
    """Up to eight documents of up to twelve sentences."""
    sentences = st.lists(st.integers(1, longest_sentence), min_size=1, max_size=12)
    return st.lists(sentences, min_size=1, max_size=8)


def chunk_of(documents: Documents, first_token: int = 0) -> Chunk:
    """Documents of these sentences; token number t of the chunk is `first_token + t`."""
    sentences = [length for document in documents for length in document]
    counts = [len(document) for document in documents]
    tokens = np.arange(sum(sentences), dtype=np.uint32) + first_token
    return Chunk(tokens, np.cumsum([0, *sentences]), np.cumsum([0, *counts]))


def random_chunk(seed: int = 0, documents: int = 400) -> Chunk:
    rng = np.random.default_rng(seed)
    return chunk_of([rng.integers(3, 50, rng.integers(1, 30)).tolist() for _ in range(documents)])


def document_of(chunk: Chunk, tokens: np.ndarray) -> np.ndarray:
    """The number of the document that each token of the chunk belongs to."""
    return np.searchsorted(chunk.sentence_offsets[chunk.document_offsets], tokens, side="right") - 1


def masked(store: TokenStore, pairing: Pairing) -> MaskedExamples:
    """A maker of examples of the store with masks as BERT has them."""
    tokenizer = store.tokenizer()
    return MaskedExamples(pairing, Masker(Masking(), tokenizer), tokenizer)


def same(a: PackedBatch, b: PackedBatch) -> bool:
    """Whether two batches are equal in every tensor."""
    tensors = [(a.input_ids, b.input_ids), (a.token_type_ids, b.token_type_ids), (a.cu_seqlens, b.cu_seqlens)]
    return all(torch.equal(x, y) for x, y in [*tensors, *((a.targets[name], b.targets[name]) for name in a.targets)])
