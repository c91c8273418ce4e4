"""What `bothways info` says of stores and batches, counted again by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bothways.data.lengths import BUCKET_MAX_TOKENS, length_histogram
from bothways.data.prepare import prepare
from bothways.data.store import TokenStore
from bothways.data.survey import batch_in_words, estimate_epoch
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.pretrain_plan import make_plan
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_tokenizer


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    folder: Path = tmp_path_factory.mktemp("survey")
    write_corpus(folder / "c.jsonl", documents=80)
    return prepare([str(folder / "c.jsonl")], tiny_tokenizer(), folder / "store")


def test_the_histogram_counts_every_sentence_and_document(store: TokenStore) -> None:
    rows = length_histogram(store).rows
    assert sum(row[1] for row in rows) == store.manifest["sentences"]
    assert sum(row[2] for row in rows) == store.manifest["documents"]
    lengths = []
    for split in (store.split("train"), store.split("validation")):
        lengths += [np.diff(split.chunk(index).sentence_offsets) for index in range(split.num_chunks)]
    assert rows[0][1] == (np.concatenate(lengths) <= BUCKET_MAX_TOKENS[0]).sum()


def test_an_epoch_is_as_long_as_its_steps(store: TokenStore) -> None:
    plan = make_plan(store, PretrainOptions(tokens_per_step=400, sequence_length=32))
    epoch, step = estimate_epoch(plan), 0
    while plan.cursor(step).epoch == 0:
        step += 1
    assert abs(epoch.tokens / (step * 400) - 1) < 0.1


def test_a_batch_in_words_shows_masks_truths_and_pairs(store: TokenStore) -> None:
    batch = make_plan(store, PretrainOptions(tokens_per_step=400, sequence_length=32)).batch(2)
    lines = list(batch_in_words(batch, tiny_tokenizer()))
    assert len(lines) == batch.num_sequences
    assert sum(line.count("→") for line in lines) == len(batch.targets["mlm_index"])
    assert sum(line.endswith("(next_sentence_label 1)") for line in lines) == batch.targets["next_sentence_label"].sum()
    assert all("[CLS]" in line and "[SEP]" in line for line in lines)
