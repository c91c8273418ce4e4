"""The vocabulary: training, files that transformers opens, ids equal on real lines."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zstandard
from transformers import AutoTokenizer, BertTokenizer

from bothways.errors import UserError
from bothways.text.tokenizer import SPECIAL_TOKENS, Tokenizer
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
    tokenizer = Tokenizer.train(lambda: lines, 4000, lowercase)
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
    with pytest.raises(UserError, match=r"--vocab-size 10 is too small: the text has \d+ different characters"):
        Tokenizer.train(lambda: TEXTS, 10)
    with pytest.raises(UserError, match="no such tokenizer directory"):
        Tokenizer.load(tmp_path / "absent")
    with pytest.raises(UserError, match="both missing"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read"):
        Tokenizer.load(tmp_path)
    with pytest.raises(UserError, match=r"lacks \[MASK\]"):
        Tokenizer.from_pieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"])
