"""The vocabulary: training, files that transformers opens, ids equal on real lines."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zstandard
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

from bothways.errors import UserError
from bothways.text.tokenizer import Tokenizer
from bothways.text.tokenizer_backend import SPECIAL_TOKENS
from tests.helpers import tiny_tokenizer

TEXTS = ["The café serves crème brûlée.", "Unbelievable! 東京 is 2,190 km²…", "naïve façades — the unseen"] * 3


def real_lines(shared_data: Path, count: int) -> list[str]:
    def lines() -> Iterator[str]:
        with (shared_data / "wikipedia-small.jsonl.zst").open("rb") as raw:
            stream = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(raw), encoding="utf-8")
            for line in stream:
                yield from json.loads(line)["text"].split("\n")

    return list(itertools.islice(lines(), count))


@pytest.mark.parametrize("lowercase", [True, False])
def test_training_covers_every_character(lowercase: bool, tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(lambda: TEXTS, 300, lowercase)
    assert [tokenizer.token(index) for index in range(5)] == list(SPECIAL_TOKENS)
    ids = np.concatenate([pieces.input_ids for pieces in tokenizer.encode_batch(TEXTS)])
    assert tokenizer.unk_id not in ids
    assert tokenizer.id("é") is None if lowercase else tokenizer.id("é") is not None
    assert {"東", "京"} <= {tokenizer.token(index) for index in ids}
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    from_vocabulary = Tokenizer.load(tmp_path)
    for other in (again, from_vocabulary):
        assert other.fingerprint == tokenizer.fingerprint
        assert other.lowercase is lowercase
        for ours, theirs in zip(tokenizer.encode_batch(TEXTS), other.encode_batch(TEXTS), strict=True):
            assert np.array_equal(ours.input_ids, theirs.input_ids)


def test_training_is_reproducible(shared_data: Path) -> None:
    lines = real_lines(shared_data, 5000)
    assert Tokenizer.train(lambda: lines, 3000).fingerprint == Tokenizer.train(lambda: lines, 3000).fingerprint


@pytest.mark.parametrize("lowercase", [True, False])
def test_transformers_gives_the_same_ids_on_10000_real_lines(
    shared_data: Path, tmp_path: Path, lowercase: bool
) -> None:
    lines = real_lines(shared_data, 10_000)
    tokenizer = Tokenizer.train(lambda: lines[::4], 4000, lowercase)  # the rest has characters that it does not know
    tokenizer.save(tmp_path, max_length=1 << 20)
    expected = AutoTokenizer.from_pretrained(tmp_path)(lines)["input_ids"]
    for pieces, ids in zip(tokenizer.encode_batch(lines), expected, strict=True):
        assert [tokenizer.cls_id, *pieces.input_ids.tolist(), tokenizer.sep_id] == ids
    slow = BertTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=lowercase)
    assert slow(lines[:200])["input_ids"] == expected[:200]


def test_offsets_point_into_the_text_as_given() -> None:
    text = "  The CAFÉ’s crème\tbrûlée 東京!"
    tokenizer = Tokenizer.train(lambda: [text] * 3, 200)
    pieces = tokenizer.encode(text)
    words = {}
    for (start, end), word in zip(pieces.offsets.tolist(), pieces.word_ids.tolist(), strict=True):
        words[word] = words.get(word, "") + text[start:end]
    assert list(words.values()) == ["The", "CAFÉ", "’", "s", "crème", "brûlée", "東", "京", "!"]


def test_literal_special_tokens_are_text_in_a_corpus_and_masks_in_a_question() -> None:
    tokenizer = tiny_tokenizer()
    assert tokenizer.mask_id in tokenizer.encode("the [MASK] runs").input_ids
    assert tokenizer.mask_id not in tokenizer.encode("the [MASK] runs", special_tokens=False).input_ids
    assert tokenizer.mask_id not in tokenizer.encode_ids(["the [MASK] runs"])[0]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"vocab_size=10 is too small: the text has \d+ different characters"):
        Tokenizer.train(lambda: TEXTS, 10)
    with pytest.raises(UserError, match="no such tokenizer directory"):
        Tokenizer.load(tmp_path / "absent")
    with pytest.raises(UserError, match="are all missing"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read"):
        Tokenizer.load(tmp_path)
    with pytest.raises(UserError, match=r"lacks \[MASK\]"):
        Tokenizer.from_pieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"])


# Ranges that a table of Unicode of another year, or a range that begins late, takes for something else: ideographs of
# BERT's range that `tokenizers` begins 256 characters late, later extensions, Hangul, Thai, emoji, punctuation and
# letters of Unicode 9 to 15, ASCII letters and symbols.
RANGES = (
    (0x2B820, 0x2B91F), (0x2CEB0, 0x2CF00), (0x30000, 0x30040), (0xAC00, 0xAC80), (0xE01, 0xE2E), (0x1F600, 0x1F640),
    (0x12FF1, 0x12FF2), (0x1E95E, 0x1E95F), (0x2E52, 0x2E5D), (0x16E97, 0x16E9A), (0x11F02, 0x11F10),
    (0x1E4D0, 0x1E4EA), (0x4E00, 0x4E10), (0x21, 0x2F), (0x61, 0x6A), (0x166D, 0x166D),
)  # fmt: skip


def texts_of_every_kind_of_character() -> list[str]:
    characters = [chr(code) for first, last in RANGES for code in range(first, last + 1)]
    draw = random.Random(0)
    return [" ".join("".join(draw.choices(characters, k=draw.randint(1, 4))) for _ in range(20)) for _ in range(200)]


PRINT_PIECES = """
import json, sys
from bothways.text.tokenizer import Tokenizer
texts = json.load(sys.stdin)
for lowercase in (True, False):
    made = Tokenizer.train(lambda: texts, 2300, lowercase, 1)
    print([made.token(id) for id in range(made.vocab_size)])
"""


def test_every_process_learns_the_same_vocabulary_from_the_same_text() -> None:
    root = Path(__file__).parents[2]
    texts = json.dumps(texts_of_every_kind_of_character()).encode()
    printed = {
        subprocess.run(
            [sys.executable, "-c", PRINT_PIECES],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root), "PYTHONIOENCODING": "utf-8"},
            input=texts,
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(printed) == 1
    assert printed.pop().count(b"\n") == 2


@pytest.mark.parametrize("lowercase", [True, False])
def test_no_character_of_the_training_text_is_unknown_whatever_year_it_is_of(lowercase: bool) -> None:
    texts = texts_of_every_kind_of_character()
    tokenizer = Tokenizer.train(lambda: texts, 2300, lowercase, 1)
    assert not any(tokenizer.unk_id in ids for ids in tokenizer.encode_ids(texts))


THAI = "ฉันชอบกินข้าวเช้าทุกวันและอ่านข่าวตอนเย็นที่บ้านของฉันในกรุงเทพมหานครกับครอบครัวและเพื่อนบ้านที่รู้จักกันมานานหลายปี"


def test_words_of_up_to_a_thousand_characters_are_read_with_a_vocabulary_learnt_here(tmp_path: Path) -> None:
    texts = [THAI, "ACGTTGCA" * 20, "https://example.org/" + "0123456789abcdef" * 9, "ab" * 500]
    assert all(len(word) > 100 for word in texts)
    tokenizer = Tokenizer.train(lambda: texts, 400, lowercase=False)
    assert not any(tokenizer.unk_id in ids for ids in tokenizer.encode_ids(texts))
    assert tokenizer.encode_ids(["ab" * 500 + "a"]) == [[tokenizer.unk_id]]
    tokenizer.save(tmp_path)
    written = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert written["model"]["max_input_chars_per_word"] == 1000
    by_transformers = PreTrainedTokenizerFast.from_pretrained(tmp_path)(texts, add_special_tokens=False)["input_ids"]
    assert by_transformers == tokenizer.encode_ids(texts)
    (tmp_path / "tokenizer.json").unlink()
    from_vocabulary = Tokenizer.load(tmp_path)
    assert from_vocabulary.encode_ids(texts) == tokenizer.encode_ids(texts)
    assert from_vocabulary.fingerprint == tokenizer.fingerprint
    assert Tokenizer.from_json(tokenizer.to_json()).encode_ids(texts) == tokenizer.encode_ids(texts)


def test_a_vocabulary_made_elsewhere_keeps_its_limit_and_its_fingerprint(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    pieces = [tokenizer.token(id) for id in range(tokenizer.vocab_size)]
    elsewhere = Tokenizer.from_pieces(pieces)
    assert elsewhere.max_word_characters == 100
    content = [pieces, [True, None, True]]  # what yesterday's fingerprint was a hash of
    assert elsewhere.fingerprint == hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    elsewhere.save(tmp_path)
    assert "max_input_chars_per_word" not in (tmp_path / "tokenizer_config.json").read_text(encoding="utf-8")
