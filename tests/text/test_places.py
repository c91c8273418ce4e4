"""Places in a text: marks belong to the character before them; places counted in other units are told by name."""

from __future__ import annotations

import itertools
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.text.places import ends_behind_marks, other_unit
from bothways.text.tokenizer import Tokenizer

# A text and its words, cut by hand: each is what a reader takes for a word.
WORDS = (
    unicodedata.normalize("NFD", "the Café ."),
    "वह दिल्ली में रहता है ।",
    "בִּירוּשָׁלַיִם הַיּוֹם",
    "ذَهَبَ الوَلَدُ",
    "ไป ที่ น้ำ",
    "I love ❤️",
    "flag 🏴󠁧󠁢󠁥󠁮󠁧󠁿 and 👨‍👩‍👧",
    "press 1️⃣ or *️⃣ now",
    unicodedata.normalize("NFD", "がぎ です"),
    "葛󠄀 城",
)


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("text", WORDS)
def test_marks_belong_to_their_letters(text: str, lowercase: bool) -> None:
    """Pieces and words end where the blank-delimited words do, whether or not the tokenizer drops the marks."""
    expected = text.split()
    assert [text[a:b] for a, b in Tokenizer.words(text)] == expected
    pieces = Tokenizer.train(lambda: [text] * 4, 160, lowercase, 1).encode(text, special_tokens=False)
    ends = {text[:end].count(" ") + 1: end for _, end in pieces.offsets.tolist()}
    assert [ends[number] for number in range(1, len(expected) + 1)] == [
        len(" ".join(expected[:number])) for number in range(1, len(expected) + 1)
    ]


def test_marks_with_a_piece_of_their_own_stay_with_it() -> None:
    tokenizer = Tokenizer.from_pieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "e", "##\u0301"], lowercase=False)
    assert tokenizer.encode("e\u0301").offsets.tolist() == [[0, 1], [1, 2]]
    bare = Tokenizer.from_pieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "e", "##e"])
    assert bare.encode("e\u0301\u0301e\u0301").offsets.tolist() == [[0, 3], [3, 5]]


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ae \u0301\u093f\ufe0f\u200d1*.क東가", max_size=20))
def test_pieces_end_behind_marks_and_never_in_the_next(text: str) -> None:
    tokenizer = Tokenizer.train(lambda: ["a e क 1 * . 東 가"] * 2, 60, True, 1)
    offsets = tokenizer.encode(text, special_tokens=False).offsets
    continues = [unicodedata.category(c).startswith("M") or c == "\u200d" for c in text] + [False]
    for number, (start, end) in enumerate(offsets.tolist()):
        assert 0 <= start < end <= len(text)
        following = offsets[number + 1, 0] if number + 1 < len(offsets) else len(text)
        assert not continues[end] or following <= end
    words = Tokenizer.words(text)
    assert all(a < b for a, b in words)
    assert all(b <= c for (_, b), (c, _) in itertools.pairwise(words))


def test_places_of_marks_by_hand() -> None:
    assert ends_behind_marks("plain") is None
    assert ends_behind_marks("größe") is None
    found = ends_behind_marks("e\u0301\u0301x\u0301")
    assert found is not None
    assert np.array_equal(found, [0, 3, 3, 3, 5, 5])


def test_other_units_are_named() -> None:
    text = "🙂🙂 my router"
    assert "UTF-16 units" in other_unit(text, 8, "router")
    assert "at character 6:" in other_unit(text, 8, "router")
    assert "bytes" in other_unit("é router", 3, "router")
    assert r"\r\n" in other_unit("a\r\nb\r\nrouter", 4, "router")
    assert other_unit(text, 7, "router") == ""
