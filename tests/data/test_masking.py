"""Masks against what BERT's paper says of them, and the sequences they are put on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.counter_random import mix
from bothways.data.masking import MaskedExamples, Masker, Masking, build_inputs
from bothways.data.sentence_pairs import SentencePairs
from bothways.data.spans import SpanOptions, Spans
from bothways.text.tokenizer import Pieces
from tests.helpers import tiny_tokenizer


def test_inputs_are_cls_a_sep_b_sep() -> None:
    tokenizer = tiny_tokenizer()
    tokens = np.arange(10, 40)
    ids, types, lengths = build_inputs(tokens, Spans.of_rows([(0, 3, 5, 7, 0), (8, 10, 10, 10, 0)]), tokenizer)
    cls, sep = tokenizer.cls_id, tokenizer.sep_id
    assert ids.tolist() == [cls, 10, 11, 12, sep, 15, 16, sep, cls, 18, 19, sep]
    assert types.tolist() == [0] * 5 + [1] * 3 + [0] * 4
    assert lengths.tolist() == [8, 4]


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=6))
def test_inputs_have_the_template_of_the_tokenizer(segments: list[tuple[int, int]]) -> None:
    tokenizer = tiny_tokenizer()
    tokens = np.arange(5, 5 + sum(map(sum, segments)))
    rows, expected, start = [], [], 0
    for a, b in segments:
        rows.append((start, start + a, start + a, start + a + b, 0))
        parts = [tokens[start : start + a], tokens[start + a : start + a + b]]
        pieces = [Pieces(ids, np.zeros((len(ids), 2), int), np.arange(len(ids))) for ids in parts if len(ids)]
        expected.append(tokenizer.with_special_tokens(pieces))
        assert len(expected[-1][1]) == a + b + tokenizer.num_special_tokens(len(pieces))
        start += a + b
    ids, types, lengths = build_inputs(tokens, Spans.of_rows(rows), tokenizer)
    assert ids.tolist() == np.concatenate([pieces.input_ids for pieces, _ in expected]).tolist()
    assert types.tolist() == np.concatenate([types for _, types in expected]).tolist()
    assert lengths.tolist() == [len(types) for _, types in expected]


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
    ids, _, _, masked, mlm_index, labels = masked_batch(Masking())
    maskable = int((ids != tokenizer.cls_id).sum() - (ids == tokenizer.sep_id).sum())

    def near(count: float, whole: int, share: float) -> bool:
        return abs(count / whole - share) < 3 * (share * (1 - share) / whole) ** 0.5

    assert near(len(mlm_index), maskable, 0.15)
    assert np.array_equal(labels, ids[mlm_index])
    assert not np.isin(labels, tokenizer.special_ids).any()
    assert np.array_equal(np.delete(masked, mlm_index), np.delete(ids, mlm_index))
    shown = masked[mlm_index]
    ordinary = tokenizer.vocab_size - 5
    assert near((shown == tokenizer.mask_id).sum(), len(mlm_index), 0.8)
    assert near((shown == labels).sum(), len(mlm_index), 0.1 + 0.1 / ordinary)
    others = shown[(shown != tokenizer.mask_id) & (shown != labels)]
    assert not np.isin(others, tokenizer.special_ids).any()
    assert len(set(others.tolist())) > 0.9 * ordinary


def test_whole_words_are_masked_whole() -> None:
    tokenizer = tiny_tokenizer()
    ids, _, _, _, mlm_index, _ = masked_batch(Masking(whole_word=True))
    chosen = np.zeros(len(ids), dtype=bool)
    chosen[mlm_index] = True
    continues = tokenizer.continuations()[ids]
    after_special = np.isin(np.roll(ids, 1), tokenizer.special_ids)
    inside = continues & ~after_special
    inside[0] = False
    assert (chosen[inside] == np.roll(chosen, 1)[inside]).all()
    assert abs(chosen.mean() / 0.98 - 0.15) < 0.01


@pytest.mark.parametrize("whole_word", [False, True])
def test_a_token_is_masked_wherever_it_stands_in_its_sequence(whole_word: bool) -> None:
    tokenizer = tiny_tokenizer()
    masking = Masking(random_share=0.0, mask_share=1.0, repeats=True, whole_word=whole_word)
    ids, _, _, masked, mlm_index, labels = masked_batch(masking)
    assert abs(len(mlm_index) / len(ids) / 0.98 - 0.15) < 0.02
    chosen = np.zeros(len(ids), dtype=bool)
    chosen[mlm_index] = True
    starts = ~tokenizer.continuations()[ids] | np.isin(np.roll(ids, 1), tokenizer.special_ids)
    alike = starts if whole_word else np.full(len(ids), True)  # whole words that begin alike are chosen together
    for first in range(0, len(ids), 100):
        sequence = slice(first, first + 100)
        of = alike[sequence]
        together = set(zip(ids[sequence][of].tolist(), chosen[sequence][of].tolist(), strict=True))
        assert len(together) == len({id for id, _ in together})
        assert whole_word or not set(ids[sequence][chosen[sequence]]) & set(masked[sequence])
    apart = masked_batch(Masking(whole_word=whole_word))[4]
    assert not np.array_equal(apart, mlm_index)
    assert np.array_equal(labels, ids[mlm_index])


def test_a_token_and_its_like_are_shown_alike() -> None:
    ids, _, _, masked, mlm_index, _ = masked_batch(Masking(repeats=True))
    seen: dict[tuple[int, int], int] = {}
    for index in mlm_index.tolist():
        assert seen.setdefault((index // 100, int(ids[index])), int(masked[index])) == masked[index]


@pytest.mark.parametrize("repeats", [False, True])
def test_masks_follow_the_sequence_not_its_company(repeats: bool) -> None:
    tokenizer = tiny_tokenizer()
    masking = Masking(repeats=repeats)
    ids, lengths, keys, masked, _, _ = masked_batch(masking, 1000)
    order = np.random.default_rng(1).permutation(len(lengths))
    shuffled = np.concatenate([ids[i * 100 : (i + 1) * 100] for i in order])
    again, _, _ = Masker(masking, tokenizer)(shuffled, lengths, keys[order])
    for place, i in enumerate(order):
        assert np.array_equal(again[place * 100 : (place + 1) * 100], masked[i * 100 : (i + 1) * 100])


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


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ValueError, match="mask_rate=0"):
        Masking(rate=0)
    with pytest.raises(ValueError, match=r"mask_share=1\.2: expected a share from 0 to 1"):
        Masking(mask_share=1.2)
    with pytest.raises(ValueError, match=r"masking shares 0\.8 and 0\.3"):
        Masking(random_share=0.3)


def test_the_identity_of_examples_is_what_earlier_runs_have_hashed() -> None:
    tokenizer = tiny_tokenizer()
    masker = Masker(Masking(0.3, whole_word=True, end_rate=0.15, steps=10), tokenizer)
    assert MaskedExamples(SentencePairs(SpanOptions(64)), masker, tokenizer).identity == [
        "SentencePairs(options=SpanOptions(sequence_length=64, short=0.1, random_next=0.5))",
        "Masking(rate=0.3, mask=0.8, random=0.1, whole_word=True, end_rate=0.15, steps=10)",
    ]
    assert Masking(repeats=True).identity != Masking().identity
