"""Statistics of masks and pairs on real articles: 15 %, 80/10/10, 50/50, and negatives from other documents."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import zstandard

from bothways.data.masking import MaskedExamples, Masker, Masking, masked_lengths
from bothways.data.plan import PretrainingPlan
from bothways.data.prepare import PrepareOptions, prepare
from bothways.data.sentence_pairs import SentencePairs
from bothways.data.store import TokenStore, join_chunks
from bothways.text.tokenizer import Tokenizer
from tests.data.helpers import document_of

pytestmark = pytest.mark.slow

ARTICLES = 400  # of 1,092, all of which tests/text/test_corpus_reading.py reads


@pytest.fixture(scope="module")
def store(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    folder = tmp_path_factory.mktemp("real")
    with zstandard.open(shared_data / "wikipedia-small.jsonl.zst", "rt", encoding="utf-8") as file:
        articles = list(itertools.islice(file, ARTICLES))
    (folder / "articles.jsonl").write_text("".join(articles), encoding="utf-8")
    lines = [line for article in articles for line in json.loads(article)["text"].split("\n")]
    tokenizer = Tokenizer.train(lambda: lines, 8192)
    return prepare([str(folder / "articles.jsonl")], tokenizer, folder / "store", PrepareOptions(workers=2))


def near(count: float, whole: int, share: float) -> bool:
    """Within three standard errors of a share."""
    return abs(count / whole - share) < 3 * (share * (1 - share) / whole) ** 0.5


def test_the_store_holds_all_articles(store: TokenStore) -> None:
    manifest = store.manifest
    assert manifest["documents"] == ARTICLES
    assert store.split("validation").documents == ARTICLES // 50
    assert manifest["unknown_tokens"] < 1e-5 * manifest["tokens"]  # only words of more than 100 characters


def test_masks_of_100k_tokens(store: TokenStore) -> None:
    tokenizer = store.tokenizer()
    plan = PretrainingPlan(
        store, MaskedExamples(SentencePairs(), Masker(Masking(), tokenizer), tokenizer), tokens_per_step=100_000, seed=1
    )
    batch = plan.batch(0)
    mlm_index, labels = batch.targets["mlm_index"].numpy(), batch.targets["mlm_labels"].numpy()
    shown = batch.input_ids.numpy()[mlm_index]
    special = 3 * batch.num_sequences  # [CLS] A [SEP] B [SEP]
    assert near(len(mlm_index), batch.num_tokens - special, 0.15)
    assert near((shown == tokenizer.mask_id).sum(), len(mlm_index), 0.8)
    assert near((shown == labels).sum(), len(mlm_index), 0.1)
    assert near(((shown != labels) & (shown != tokenizer.mask_id)).sum(), len(mlm_index), 0.1)
    assert not np.isin(labels, (tokenizer.cls_id, tokenizer.sep_id)).any()
    assert near(batch.targets["next_sentence_label"].sum().item(), batch.num_sequences, 0.5)


def test_pairs_of_the_whole_corpus(store: TokenStore) -> None:
    split = store.split("train")
    chunk = join_chunks([split.chunk(index) for index in range(split.num_chunks)])
    spans = SentencePairs().spans(chunk, np.random.default_rng(0))
    random = spans.next_sentence_label == 1
    assert ((document_of(chunk, spans.a_start) != document_of(chunk, spans.b_start)) == random).all()
    lengths = masked_lengths(spans)
    assert lengths.max() == 128
    # Short targets aim at 2 to 124 tokens of 125 evenly; one long sentence can still carry such an example past them.
    assert 0.04 < (lengths < 100).mean() < 0.16
    # A collection of one sentence always gets a random partner, so the share of random pairs lies a little above half.
    assert 0.49 < random.mean() < 0.54
