"""Small inputs that several test files build on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from bothways.batch import PackedBatch, pack, pack_sequences
from bothways.model.config import EncoderConfig
from bothways.text.tokenizer import Tokenizer
from bothways.text.tokenizer_backend import SPECIAL_TOKENS

if TYPE_CHECKING:
    from transformers import BertConfig as HuggingFaceConfig

Run = Callable[..., tuple[int, str, str]]  # arguments of the command line → exit code, output, errors

WORDS = [
    "the",
    "a",
    "of",
    "red",
    "blue",
    "green",
    "dog",
    "cat",
    "bird",
    "house",
    "runs",
    "sleeps",
    "eats",
    "big",
    "small",
    "old",
    "new",
    "and",
    "or",
    "not",
    "in",
    "on",
]


def tiny_tokenizer() -> Tokenizer:
    """A vocabulary of the special tokens, some words, and the letters as words and continuations."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    return Tokenizer.from_pieces(
        [*SPECIAL_TOKENS, *WORDS, *(c for c in letters if c not in WORDS), *(f"##{c}" for c in letters), ".", "?"]
    )


def tiny_config(**overrides: object) -> EncoderConfig:
    """Two layers of 32 for the tiny vocabulary."""
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return EncoderConfig(**{"vocab_size": tiny_tokenizer().vocab_size, **shape, **overrides})  # type: ignore[arg-type]


def random_batch(lengths: Sequence[int], vocab_size: int, seed: int = 0) -> PackedBatch:
    """Random ids in pairs: the second half of each sequence is segment 1."""
    rng = np.random.default_rng(seed)
    return pack_sequences(
        [
            (rng.integers(5, vocab_size, length), (np.arange(length) > length // 2).astype(np.int64))
            for length in lengths
        ]
    )


def batch_of_lengths(lengths: torch.Tensor) -> PackedBatch:
    """A batch of sequences of these lengths, for attention, which reads nothing else of it."""
    ids = np.zeros(int(lengths.sum()), dtype=np.int64)
    return pack(ids, ids, lengths.numpy())


def hugging_face_config(config: EncoderConfig, **overrides: object) -> HuggingFaceConfig:
    from transformers import BertConfig  # here, as tests on a GPU have no need of it

    return BertConfig(**{**config.to_dict(), **overrides})


def padded(batch: PackedBatch) -> dict[str, torch.Tensor]:
    """The batch as `transformers` wants it: `[N, longest]` with an attention mask."""
    shape = (batch.num_sequences, batch.max_seqlen)
    inputs = {name: torch.zeros(shape, dtype=torch.long) for name in ("input_ids", "token_type_ids", "attention_mask")}
    begin = 0
    for row, length in enumerate(batch.lengths.tolist()):
        part = slice(begin, begin + length)
        inputs["input_ids"][row, :length] = batch.input_ids[part]
        inputs["token_type_ids"][row, :length] = batch.token_type_ids[part]
        inputs["attention_mask"][row, :length] = 1
        begin += length
    return inputs


def unpadded(values: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
    """`[N, longest, …]` back to `[T, …]`."""
    return torch.cat([values[row, :length] for row, length in enumerate(batch.lengths.tolist())])
