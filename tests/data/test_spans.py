"""Spans: five integers an example, and tokens gathered for those that are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from bothways.data.spans import SpanOptions, Spans, ranges

ROWS = [(0, 3, 5, 7, 0), (8, 10, 2, 6, 1), (4, 9, 9, 9, 0)]


def rows_of(spans: Spans) -> list[tuple[int, ...]]:
    columns = (spans.a_start, spans.a_end, spans.b_start, spans.b_end, spans.next_sentence_label)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_lengths_are_those_of_the_segments() -> None:
    spans = Spans.of_rows(ROWS)
    assert len(spans) == 3
    assert spans.a_lengths.tolist() == [3, 2, 5]
    assert spans.b_lengths.tolist() == [2, 4, 0]
    assert spans.lengths.tolist() == [5, 6, 5]
    assert rows_of(spans.take(np.array([2, 0]))) == [ROWS[2], ROWS[0]]
    assert rows_of(Spans.of_single_segments([(4, 9)])) == [ROWS[2]]
    assert len(Spans.of_rows([])) == 0


def test_spans_of_several_blocks_point_into_their_tokens_end_to_end() -> None:
    blocks = [np.arange(20), np.arange(100, 130)]
    spans = [Spans.of_rows(ROWS[:2]), Spans.of_rows(ROWS[1:])]
    joined, tokens = Spans.join(spans, [0, 20]), np.concatenate(blocks)
    assert joined.next_sentence_label.tolist() == [0, 1, 1, 0]
    expected = [block[ranges(part.a_start, part.a_lengths)] for block, part in zip(blocks, spans, strict=True)]
    assert tokens[ranges(joined.a_start, joined.a_lengths)].tolist() == np.concatenate(expected).tolist()
    expected = [block[ranges(part.b_start, part.b_lengths)] for block, part in zip(blocks, spans, strict=True)]
    assert tokens[ranges(joined.b_start, joined.b_lengths)].tolist() == np.concatenate(expected).tolist()


def test_ranges_are_end_to_end() -> None:
    assert ranges(np.array([5, 0, 9]), np.array([3, 0, 2])).tolist() == [5, 6, 7, 9, 10]


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ValueError, match="sequence_length=4"):
        SpanOptions(4)
    with pytest.raises(ValueError, match=r"short=1\.5"):
        SpanOptions(short=1.5)
