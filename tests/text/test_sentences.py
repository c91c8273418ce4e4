"""Where sentences end, and which lines are one paragraph."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.text.corpus import Document
from bothways.text.sentences import is_hard_wrapped, split_sentences


def sentences(text: str) -> list[str]:
    return split_sentences(Document(text, "a:1"))


def test_a_line_ends_a_sentence() -> None:
    assert sentences("A heading\nDr. Smith  came at 5 p.m. today. He left!\n\n \nEnd") == [
        "A heading",
        "Dr. Smith came at 5 p.m. today.",
        "He left!",
        "End",
    ]


def test_hard_wrapped_paragraphs_are_joined() -> None:
    wrapped = (
        "It was the best of times, it was the worst of times, it was the age\n"
        "of wisdom, it was the age of foolishness. It was the epoch of belief,\n"
        "it was the epoch of incredulity.\n\n"
        "There were a king with a large jaw and a queen with a plain face,\n"
        "on the throne of England. More was to come.\n"
    )
    assert is_hard_wrapped(wrapped.splitlines())
    assert [len(sentence.split()) for sentence in sentences(wrapped)] == [24, 12, 20, 4]


@pytest.mark.parametrize(
    "text",
    ["apple\nbanana\ncherry\n", "Shall I compare thee to a summer's day\nThou art more lovely\n", ""],
)
def test_lists_and_verse_keep_their_lines(text: str) -> None:
    assert sentences(text) == text.splitlines()


@given(st.text(max_size=400))
def test_sentences_lose_no_characters(text: str) -> None:
    split = sentences(text)
    assert "".join("".join(split).split()) == "".join(text.split())
    assert all(sentence and sentence == " ".join(sentence.split()) for sentence in split)
