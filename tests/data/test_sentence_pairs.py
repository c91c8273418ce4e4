"""Sentence pairs, ordered pairs and full sentences against what their papers say."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.data.masking import masked_lengths
from bothways.data.sentence_pairs import FullSentences, FullSentencesAcross, SentenceOrder, SentencePairs
from bothways.data.spans import SpanOptions
from tests.data.helpers import Documents, chunk_of, document_of, documents_of, random_chunk


@given(documents_of(), st.integers(8, 64), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_pairs_hold_their_promises(documents: Documents, length: int, seed: int) -> None:
    chunk = chunk_of(documents)
    spans = SentencePairs(SpanOptions(length)).spans(chunk, np.random.default_rng(seed))
    label = spans.next_sentence_label
    assert (masked_lengths(spans) <= length).all()
    assert (spans.a_lengths > 0).all()
    assert (spans.b_lengths > 0).all()
    same = document_of(chunk, spans.a_start) == document_of(chunk, spans.b_start)
    assert (same == (label == 0)).all()
    assert (document_of(chunk, spans.a_start) == document_of(chunk, spans.a_end - 1)).all()
    assert (document_of(chunk, spans.b_start) == document_of(chunk, spans.b_end - 1)).all()
    assert (spans.b_start[label == 0] >= spans.a_end[label == 0]).all()
    if len(documents) == 1:
        assert (label == 0).all()


def test_every_sentence_that_fits_is_used_and_the_rest_put_back() -> None:
    chunk = chunk_of([[10] * 30, [10] * 30])
    options = SpanOptions(sequence_length=103, short=0.0)
    spans = SentencePairs(options).spans(chunk, np.random.default_rng(0))
    used = Counter[int]()
    for a_start, a_end in zip(spans.a_start.tolist(), spans.a_end.tolist(), strict=True):
        used.update(range(a_start, a_end))
    follows = spans.take(np.flatnonzero(spans.next_sentence_label == 0))
    for b_start, b_end in zip(follows.b_start.tolist(), follows.b_end.tolist(), strict=True):
        used.update(range(b_start, b_end))
    assert set(used) == set(range(600))
    assert set(used.values()) == {1}


def test_half_of_the_pairs_are_random_and_a_tenth_is_short() -> None:
    spans = SentencePairs(SpanOptions(128)).spans(random_chunk(), np.random.default_rng(1))
    # a chunk of a single sentence always gets a random partner: documents' last sentences
    share = spans.next_sentence_label.mean()
    assert 0.5 - 3 * 0.5 / len(spans) ** 0.5 < share < 0.62
    long_documents = chunk_of([[20] * 4000, [20] * 4000])
    spans = SentencePairs(SpanOptions(128)).spans(long_documents, np.random.default_rng(2))
    error = 3 * (0.25 / len(spans)) ** 0.5
    short = (masked_lengths(spans) < 108).mean()  # a short target of 108 and more still fills up with one sentence
    assert abs(short - 0.1 * 105 / 124) < 3 * (0.09 / len(spans)) ** 0.5 + 0.03
    random = spans.next_sentence_label.mean()
    assert 0.5 - error < random < 0.5 + error + 0.02  # targets of under 21 tokens hold one sentence: always random


@given(documents_of(), st.integers(8, 64))
@settings(max_examples=40, deadline=None)
def test_full_sentences_cover_every_token_once(documents: Documents, length: int) -> None:
    chunk = chunk_of(documents)
    spans = FullSentences(SpanOptions(length)).spans(chunk, np.random.default_rng(0))
    covered = np.concatenate([np.arange(start, end) for start, end in zip(spans.a_start, spans.a_end, strict=True)])
    assert np.array_equal(np.sort(covered), chunk.tokens)
    assert (masked_lengths(spans) <= length).all()
    assert (document_of(chunk, spans.a_start) == document_of(chunk, spans.a_end - 1)).all()


@given(documents_of(), st.integers(8, 64), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_ordered_segments_meet_and_swapped_ones_are_marked(documents: Documents, length: int, seed: int) -> None:
    chunk = chunk_of(documents)
    spans = SentenceOrder(SpanOptions(length)).spans(chunk, np.random.default_rng(seed))
    assert (masked_lengths(spans) <= length).all()
    assert ((spans.a_start < spans.b_start) == (spans.next_sentence_label == 0)).all()
    assert (np.minimum(spans.a_lengths, spans.b_lengths) > 0).all()
    assert (document_of(chunk, spans.a_start) == document_of(chunk, spans.b_end - 1)).all()
    begins, ends = np.minimum(spans.a_start, spans.b_start), np.maximum(spans.a_end, spans.b_end)
    assert (begins[1:] >= ends[:-1]).all()  # nothing is read twice


def test_half_of_the_ordered_pairs_are_swapped() -> None:
    spans = SentenceOrder(SpanOptions(64)).spans(random_chunk(), np.random.default_rng(0))
    share = (spans.next_sentence_label == 1).mean()
    assert abs(share - 0.5) < 3 * (0.25 / len(spans)) ** 0.5


@given(documents_of(), st.integers(8, 64))
@settings(max_examples=60, deadline=None)
def test_full_sentences_go_on_into_the_next_document_past_a_separator(documents: Documents, length: int) -> None:
    chunk, sep = chunk_of(documents), 10_000
    across = FullSentencesAcross(SpanOptions(length))
    joined = across.lay_out(chunk, sep)
    ends = chunk.sentence_offsets[chunk.document_offsets[1:-1]]
    assert joined.tokens.tolist() == np.insert(chunk.tokens, ends, sep).tolist()
    spans = across.spans(joined, np.random.default_rng(0))
    covered = np.concatenate([joined.tokens[a:b] for a, b in zip(spans.a_start, spans.a_end, strict=True)])
    assert covered.tolist() == joined.tokens.tolist()  # every token once, in order
    assert (masked_lengths(spans) <= length).all()


def test_a_sequence_holds_the_end_of_one_document_and_the_beginning_of_the_next() -> None:
    across = FullSentencesAcross(SpanOptions(14))
    joined = across.lay_out(chunk_of([[3, 3], [2, 9], [4]]), 99)
    spans = across.spans(joined, np.random.default_rng(0))
    read = [joined.tokens[a:b].tolist() for a, b in zip(spans.a_start, spans.a_end, strict=True)]
    assert read == [[0, 1, 2, 3, 4, 5, 99, 6, 7], [*range(8, 17), 99], [17, 18, 19, 20]]
