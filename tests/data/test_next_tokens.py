"""Next-token examples: `[SOS] x1 … xn` is read, `x1 … xn [EOS]` is to be said, each token once an epoch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bothways.data.examples import NextTokens
from bothways.data.sentence_pairs import A_END, A_START, SpanOptions
from bothways.data.store import Chunk
from tests.helpers import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
Documents = list[list[int]]  # the lengths of each document's sentences


def block(documents: Documents) -> Chunk:
    sentences = [length for document in documents for length in document]
    tokens = np.arange(sum(sentences), dtype=np.uint32) + 1000  # each token another one
    counts = [len(document) for document in documents]
    return Chunk(tokens, np.cumsum([0, *sentences]), np.cumsum([0, *counts]))


@given(
    st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=6), min_size=1, max_size=8),
    st.integers(8, 40),
    st.integers(0, 100),
)
def test_every_token_is_said_once_behind_the_one_before_it(documents: Documents, length: int, seed: int) -> None:
    """Read end to end, the examples give every document between `[CLS]` and `[SEP]` and nothing else."""
    makes = NextTokens(SpanOptions(length), TOKENIZER)
    chunk = makes.arrange(block(documents))
    examples = makes.examples(chunk, np.random.default_rng(seed))
    lengths = makes.lengths(examples)
    assert (lengths >= 1).all()
    assert (lengths <= length).all()
    batch = makes.batch(*makes.gather(chunk.tokens, examples), examples, np.zeros(len(examples), dtype=np.uint64), 0)
    read = [part.tolist() for part in batch.input_ids.split(lengths.tolist())]
    said = [part.tolist() for part in batch.targets["next_tokens"].split(lengths.tolist())]
    for one, following in zip(read, said, strict=True):
        assert one[1:] == following[:-1]
    expected, start = [], 1000
    for document in documents:
        expected += [TOKENIZER.cls_id, *range(start, start + sum(document)), TOKENIZER.sep_id]
        start += sum(document)
    order = np.argsort(examples[:, A_START])
    told = [token for n in order for token in ([TOKENIZER.cls_id] if read[n][0] == TOKENIZER.cls_id else []) + said[n]]
    assert told == expected
    assert (examples[:, A_END] > examples[:, A_START]).all()
    assert not batch.token_type_ids.any()


def test_long_documents_are_cut_elsewhere_in_another_epoch() -> None:
    makes = NextTokens(SpanOptions(16), TOKENIZER)
    chunk = makes.arrange(block([[200]]))
    cuts = [set(makes.examples(chunk, np.random.default_rng(seed))[1:, A_START].tolist()) for seed in range(3)]
    assert cuts[0] != cuts[1] or cuts[1] != cuts[2]
    whole = makes.arrange(block([[10], [3]]))
    assert len(makes.examples(whole, np.random.default_rng(0))) == 2, "a document that fits is not cut"
