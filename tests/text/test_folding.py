"""What lower case without accents takes away, and that it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothways.cli import main
from bothways.text.folding import COUNTED_CHARACTERS, CharacterCounts, folding_message
from bothways.text.tokenizer import Tokenizer


def message_of(text: str, **options: bool) -> str | None:
    counts = CharacterCounts()
    counts.add(text)
    tokenizer = Tokenizer.train(lambda: [text], 200, min_frequency=1, **options)
    return folding_message(counts, tokenizer.normalise)


@pytest.mark.parametrize(
    ("text", "share", "example"),
    [
        ("がぎぐげご", "100%", "が → か"),
        ("か が", "50%", "が → か"),
        ("हंद", "50%", "ं (U+0902) is dropped"),  # a mark, two letters
        ("Tiếng Việt", "22%", "ế → e"),  # 2 of 9
        ("한국", "100%", "국 → ᄀ + ᅮ + ᆨ"),
        ("de\u0301ja\u0300", "50%", "\u0301 (U+0301) is dropped"),  # 2 marks, 4 letters
        ("Алёна", "20%", "ё → е"),
    ],
)
def test_letters_that_lose_something_are_counted_and_named(text: str, share: str, example: str) -> None:
    message = message_of(text)
    assert message is not None
    assert example in message
    assert message.startswith(share)
    assert message_of(text, lowercase=False) is None
    assert message_of(text, strip_accents=False) is None


def test_nothing_is_said_of_a_few_accents_in_english() -> None:
    text = "naïve " + "the plain English of two hundred letters " * 6
    assert message_of(text) is None
    assert message_of("ABC Σ, 123 — 東京!") is None


def test_counts_are_of_all_texts() -> None:
    counts = CharacterCounts()
    for text in ("ab" * COUNTED_CHARACTERS, "bc", "😀"):
        counts.add(text)
    assert counts.items() == [("a", COUNTED_CHARACTERS), ("b", COUNTED_CHARACTERS + 1), ("c", 1), ("😀", 1)]


def test_the_verb_says_it_once_and_keeps_marks_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ja.txt").write_text("アリババのサービスです。ABC", encoding="utf-8")
    arguments = ["tokenizer", str(tmp_path / "ja.txt"), "--vocab-size", "100", "--min-frequency", "1", "--out"]
    assert main([*arguments, str(tmp_path / "folded")]) == 0
    assert capsys.readouterr().err.count("lose a mark or are taken apart (バ → ハ") == 1
    assert main([*arguments, str(tmp_path / "kept"), "--keep-marks"]) == 0
    assert "lose a mark" not in capsys.readouterr().err
    kept = Tokenizer.load(tmp_path / "kept")
    (tmp_path / "kept" / "tokenizer.json").unlink()
    for tokenizer in (kept, Tokenizer.load(tmp_path / "kept")):
        assert tokenizer.normalise("サービスです。ABC") == "サービスです。abc"
        assert tokenizer.decode(tokenizer.encode("サービスです").input_ids.tolist()) == "サービスです"
