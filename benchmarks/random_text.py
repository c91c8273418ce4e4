"""A token store of random pieces, for machines without data: sentences and documents of ragged length."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bothways.data.store import Shard, ShardWriter, TokenStore, store_fingerprint
from bothways.files import write_json
from bothways.text.corpus_report import CorpusReport
from bothways.text.tokenizer import Tokenizer
from bothways.text.tokenizer_backend import SPECIAL_TOKENS


def random_tokenizer(vocab_size: int) -> Tokenizer:
    """Special tokens and words w0, w1, …, so many pieces in all."""
    words = [f"w{number}" for number in range(vocab_size - len(SPECIAL_TOKENS))]
    return Tokenizer.from_pieces([*SPECIAL_TOKENS, *words])


def random_store(folder: Path, vocab_size: int, tokens: int) -> TokenStore:
    """A store of so many random tokens: sentences of 3 to 60 pieces, documents of 2 to 40 sentences. It has no held-out
    part."""
    tokenizer = random_tokenizer(vocab_size)
    (folder / "tokenizer").mkdir(parents=True)
    tokenizer.save(folder / "tokenizer")
    rng, writer = np.random.default_rng(0), ShardWriter(folder / "train-00000.arrow", np.dtype(np.uint16))
    while tokens > 0:
        lengths = rng.integers(3, 60, rng.integers(2, 40)).astype(np.int32)
        writer.add(rng.integers(len(SPECIAL_TOKENS), vocab_size, lengths.sum()), lengths)
        tokens -= int(lengths.sum())
    writer.close()
    splits: dict[str, list[Shard]] = {"train": [writer.shard()], "validation": []}
    manifest = {
        "fingerprint": store_fingerprint(tokenizer.fingerprint, splits),
        "tokenizer": tokenizer.fingerprint,
        "vocab_size": vocab_size,
        "unknown_tokens": 0,
        **{name: getattr(splits["train"][0], name) for name in ("documents", "sentences", "tokens")},
        "splits": {name: [vars(shard) for shard in shards] for name, shards in splits.items()},
        "corpus": CorpusReport().to_dict(),
    }
    write_json(folder / "manifest.json", manifest)
    return TokenStore(folder)
