"""Sentence pairs and masking against what BERT's paper and its statistics say."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.counter_random import mix, uniforms
from bothways.data.masking import Masker, Masking
from bothways.data.sentence_pairs import (
    FullSentences,
    FullSentencesAcross,
    SentenceOrder,
    SentencePairs,
    SpanOptions,
    build_inputs,
    example_lengths,
)
from bothways.data.store import Chunk
from tests.helpers import tiny_tokenizer

documents_of = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=12), min_size=1, max_size=8)


def block(documents: list[list[int]]) -> Chunk:
    """Documents given as lists of sentence lengths; token t of the block is the number t."""
    sentences = [length for document in documents for length in document]
    return Chunk(
        np.arange(sum(sentences)),
        np.concatenate([[0], np.cumsum(sentences)]),
        np.concatenate([[0], np.cumsum([len(document) for document in documents])]),
    )


def random_block(seed: int = 0, documents: int = 400) -> Chunk:
    rng = np.random.default_rng(seed)
    return block([rng.integers(3, 50, rng.integers(1, 30)).tolist() for _ in range(documents)])


def document_of(chunk: Chunk, tokens: np.ndarray) -> np.ndarray:
    return np.searchsorted(chunk.sentence_offsets[chunk.document_offsets], tokens, side="right") - 1


@given(documents_of, st.integers(8, 64), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_pairs_hold_their_promises(documents: list[list[int]], length: int, seed: int) -> None:
    chunk = block(documents)
    examples = SentencePairs(SpanOptions(length)).examples(chunk, np.random.default_rng(seed))
    a_start, a_end, b_start, b_end, label = examples.T
    assert (example_lengths(examples) <= length).all()
    assert (a_end > a_start).all()
    assert (b_end > b_start).all()
    same = document_of(chunk, a_start) == document_of(chunk, b_start)
    assert (same == (label == 0)).all()
    assert (document_of(chunk, a_start) == document_of(chunk, a_end - 1)).all()
    assert (document_of(chunk, b_start) == document_of(chunk, b_end - 1)).all()
    assert (b_start[label == 0] >= a_end[label == 0]).all()
    if len(documents) == 1:
        assert (label == 0).all()


def test_every_sentence_that_fits_is_used_and_the_rest_put_back() -> None:
    chunk = block([[10] * 30, [10] * 30])
    options = SpanOptions(sequence_length=103, short=0.0)
    examples = SentencePairs(options).examples(chunk, np.random.default_rng(0))
    used = Counter[int]()
    for a_start, a_end, b_start, b_end, label in examples.tolist():
        used.update(range(a_start, a_end))
        if label == 0:
            used.update(range(b_start, b_end))
    assert set(used) == set(range(600))
    assert set(used.values()) == {1}


def test_half_of_the_pairs_are_random_and_a_tenth_is_short() -> None:
    chunk = random_block()
    examples = SentencePairs(SpanOptions(128)).examples(chunk, np.random.default_rng(1))
    several = examples  # a chunk of a single sentence always gets a random partner: documents' last sentences
    share = several[:, 4].mean()
    assert 0.5 - 3 * 0.5 / len(several) ** 0.5 < share < 0.62
    long_documents = block([[20] * 4000, [20] * 4000])
    examples = SentencePairs(SpanOptions(128)).examples(long_documents, np.random.default_rng(2))
    error = 3 * (0.25 / len(examples)) ** 0.5
    short = (example_lengths(examples) < 108).mean()  # a short target of 108 and more still fills up with one sentence
    assert abs(short - 0.1 * 105 / 124) < 3 * (0.09 / len(examples)) ** 0.5 + 0.03
    single = (examples[:, 4] == 1).mean()
    assert 0.5 - error < single < 0.5 + error + 0.02  # targets of under 21 tokens hold one sentence: always random


@given(documents_of, st.integers(8, 64))
@settings(max_examples=40, deadline=None)
def test_full_sentences_cover_every_token_once(documents: list[list[int]], length: int) -> None:
    chunk = block(documents)
    examples = FullSentences(SpanOptions(length)).examples(chunk, np.random.default_rng(0))
    covered = np.concatenate([np.arange(start, end) for start, end, *_ in examples.tolist()])
    assert np.array_equal(np.sort(covered), chunk.tokens)
    assert (example_lengths(examples) <= length).all()
    assert (document_of(chunk, examples[:, 0]) == document_of(chunk, examples[:, 1] - 1)).all()


def test_materialise_writes_cls_a_sep_b_sep() -> None:
    tokenizer = tiny_tokenizer()
    tokens = np.arange(10, 40)
    examples = np.array([[0, 3, 5, 7, 0], [8, 10, 10, 10, 0]])
    ids, types, lengths = build_inputs(tokens, examples, tokenizer)
    cls, sep = tokenizer.cls_id, tokenizer.sep_id
    assert ids.tolist() == [cls, 10, 11, 12, sep, 15, 16, sep, cls, 18, 19, sep]
    assert types.tolist() == [0] * 5 + [1] * 3 + [0] * 4
    assert lengths.tolist() == [8, 4]


def masked_batch(masking: Masking, tokens: int = 100_000) -> tuple[np.ndarray, ...]:
    tokenizer = tiny_tokenizer()
    rng = np.random.default_rng(0)
    lengths = np.full(tokens // 100, 100)
    ids = rng.integers(5, tokenizer.vocab_size, tokens)
    ids[::100], ids[99::100] = tokenizer.cls_id, tokenizer.sep_id
    keys = mix(np.arange(len(lengths)), 7)
    return ids, lengths, keys, *Masker(masking, tokenizer)(ids, lengths, keys)


def test_masking_statistics_on_100k_tokens() -> None:
    tokenizer = tiny_tokenizer()
    ids, _, _, masked, rows, labels = masked_batch(Masking())
    maskable = int((ids != tokenizer.cls_id).sum() - (ids == tokenizer.sep_id).sum())

    def near(count: float, whole: int, share: float) -> bool:
        return abs(count / whole - share) < 3 * (share * (1 - share) / whole) ** 0.5

    assert near(len(rows), maskable, 0.15)
    assert np.array_equal(labels, ids[rows])
    assert not np.isin(labels, tokenizer.special_ids).any()
    assert np.array_equal(np.delete(masked, rows), np.delete(ids, rows))
    shown = masked[rows]
    ordinary = tokenizer.vocab_size - 5
    assert near((shown == tokenizer.mask_id).sum(), len(rows), 0.8)
    assert near((shown == labels).sum(), len(rows), 0.1 + 0.1 / ordinary)
    others = shown[(shown != tokenizer.mask_id) & (shown != labels)]
    assert not np.isin(others, tokenizer.special_ids).any()
    assert len(set(others.tolist())) > 0.9 * ordinary


def test_whole_words_are_masked_whole() -> None:
    tokenizer = tiny_tokenizer()
    ids, _, _, _, rows, _ = masked_batch(Masking(whole_word=True))
    chosen = np.zeros(len(ids), dtype=bool)
    chosen[rows] = True
    continues = tokenizer.continuations()[ids]
    after_special = np.isin(np.roll(ids, 1), tokenizer.special_ids)
    inside = continues & ~after_special
    inside[0] = False
    assert (chosen[inside] == np.roll(chosen, 1)[inside]).all()
    assert abs(chosen.mean() / 0.98 - 0.15) < 0.01


def test_masks_follow_the_sequence_not_its_company() -> None:
    tokenizer = tiny_tokenizer()
    ids, lengths, keys, masked, _, _ = masked_batch(Masking(), 1000)
    order = np.random.default_rng(1).permutation(len(lengths))
    shuffled = np.concatenate([ids[i * 100 : (i + 1) * 100] for i in order])
    again, _, _ = Masker(Masking(), tokenizer)(shuffled, lengths, keys[order])
    for place, i in enumerate(order):
        assert np.array_equal(again[place * 100 : (place + 1) * 100], masked[i * 100 : (i + 1) * 100])


def test_counter_based_uniforms_are_uniform_and_unrelated() -> None:
    keys = np.arange(200_000)
    first, second = uniforms(keys, np.zeros(1, int), 0), uniforms(keys, np.zeros(1, int), 1)
    histogram, _ = np.histogram(first, 100, (0, 1))
    chi_squared = ((histogram - 2000) ** 2 / 2000).sum()
    assert 50 < chi_squared < 160  # 99 degrees of freedom: beyond one in ten thousand
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.01
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.01


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ValueError, match="--mask-rate 0"):
        Masking(rate=0)
    with pytest.raises(ValueError, match="--sequence-length 4"):
        SpanOptions(4)


@given(documents_of, st.integers(8, 64), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_ordered_segments_meet_and_swapped_ones_are_marked(documents: list[list[int]], length: int, seed: int) -> None:
    chunk = block(documents)
    examples = SentenceOrder(SpanOptions(length)).examples(chunk, np.random.default_rng(seed))
    assert (example_lengths(examples) <= length).all()
    a_start, a_end, b_start, b_end, label = examples.T
    assert ((a_start < b_start) == (label == 0)).all()
    assert (np.minimum(a_end - a_start, b_end - b_start) > 0).all()
    assert (document_of(chunk, a_start) == document_of(chunk, b_end - 1)).all()
    begins, ends = np.minimum(a_start, b_start), np.maximum(a_end, b_end)
    assert (begins[1:] >= ends[:-1]).all()  # nothing is read twice


def test_half_of_the_ordered_pairs_are_swapped() -> None:
    examples = SentenceOrder(SpanOptions(64)).examples(random_block(), np.random.default_rng(0))
    share, count = (examples[:, 4] == 1).mean(), len(examples)
    assert abs(share - 0.5) < 3 * (0.25 / count) ** 0.5


@given(documents_of, st.integers(8, 64))
@settings(max_examples=60, deadline=None)
def test_full_sentences_go_on_into_the_next_document_past_a_separator(documents: list[list[int]], length: int) -> None:
    chunk, sep = block(documents), 10_000
    across = FullSentencesAcross(SpanOptions(length))
    joined = across.arrange(chunk, sep)
    ends = chunk.sentence_offsets[chunk.document_offsets[1:-1]]
    assert joined.tokens.tolist() == np.insert(chunk.tokens, ends, sep).tolist()
    examples = across.examples(joined, np.random.default_rng(0))
    covered = np.concatenate([joined.tokens[a:b] for a, b in examples[:, :2]])
    assert covered.tolist() == joined.tokens.tolist()  # every token once, in order
    assert (example_lengths(examples) <= length).all()


def test_a_sequence_holds_the_end_of_one_document_and_the_beginning_of_the_next() -> None:
    across = FullSentencesAcross(SpanOptions(14))
    joined = across.arrange(block([[3, 3], [2, 9], [4]]), 99)
    examples = across.examples(joined, np.random.default_rng(0))
    read = [joined.tokens[a:b].tolist() for a, b in examples[:, :2]]
    assert read == [[0, 1, 2, 3, 4, 5, 99, 6, 7], [*range(8, 17), 99], [17, 18, 19, 20]]


def test_the_masking_rate_moves_in_a_line() -> None:
    masking = Masking(0.3, end_rate=0.15, steps=100)
    assert [round(masking.rate_at(step), 4) for step in (0, 50, 100, 200)] == [0.3, 0.225, 0.15, 0.15]
    later = masking.between(40, 80)  # a phase of the run sees the same rates at the same steps
    assert all(abs(later.rate_at(step) - masking.rate_at(40 + step)) < 1e-12 for step in range(41))
    tokenizer = tiny_tokenizer()
    ids = np.full(40_000, tokenizer.id("dog"))
    masker = Masker(masking, tokenizer)
    for step in (0, 50, 100):
        share = len(masker(ids, np.array([len(ids)]), np.array([7], dtype=np.uint64), step)[1]) / len(ids)
        assert abs(share - masking.rate_at(step)) < 0.01
