"""Next-token examples: `[SOS] x1 … xn` is read, `x1 … xn [EOS]` predicted, each token once an epoch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bothways.data.next_tokens import NextTokens
from bothways.data.spans import SpanOptions
from tests.data.helpers import Documents, chunk_of, documents_of
from tests.helpers import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
FIRST = 1000  # a token that is no special one


@given(documents_of(30), st.integers(8, 40), st.integers(0, 100))
def test_every_token_is_predicted_once_from_those_before_it(documents: Documents, length: int, seed: int) -> None:
    """Read end to end, the examples give every document between `[CLS]` and `[SEP]` and nothing else."""
    maker = NextTokens(SpanOptions(length), TOKENIZER)
    chunk = maker.lay_out(chunk_of(documents, FIRST))
    spans = maker.spans(chunk, np.random.default_rng(seed))
    lengths = maker.lengths(spans)
    assert (lengths >= 1).all()
    assert (lengths <= length).all()
    batch = maker.batch(chunk.tokens, spans, np.zeros(len(spans), dtype=np.uint64), 0)
    read = [ids.tolist() for ids in batch.input_ids.split(lengths.tolist())]
    predicted = [ids.tolist() for ids in batch.targets["next_tokens"].split(lengths.tolist())]
    for ids, following in zip(read, predicted, strict=True):
        assert ids[1:] == following[:-1]
    expected, start = [], FIRST
    for document in documents:
        expected += [TOKENIZER.cls_id, *range(start, start + sum(document)), TOKENIZER.sep_id]
        start += sum(document)
    found = []
    for number in np.argsort(spans.a_start):
        found += [TOKENIZER.cls_id] if read[number][0] == TOKENIZER.cls_id else []
        found += predicted[number]
    assert found == expected
    assert (spans.a_lengths > 0).all()
    assert not spans.b_lengths.any()
    assert not batch.token_type_ids.any()


def test_long_documents_are_cut_elsewhere_in_another_epoch() -> None:
    maker = NextTokens(SpanOptions(16), TOKENIZER)
    chunk = maker.lay_out(chunk_of([[200]], FIRST))
    cuts = [set(maker.spans(chunk, np.random.default_rng(seed)).a_start[1:].tolist()) for seed in range(3)]
    assert cuts[0] != cuts[1] or cuts[1] != cuts[2]
    whole = maker.lay_out(chunk_of([[10], [3]], FIRST))
    assert len(maker.spans(whole, np.random.default_rng(0))) == 2, "a document that fits is not cut"


def test_the_identity_of_examples_is_what_earlier_runs_have_hashed() -> None:
    identity = "NextTokens(SpanOptions(sequence_length=16, short=0.1, random_next=0.5))"
    assert NextTokens(SpanOptions(16), TOKENIZER).identity == [identity]
