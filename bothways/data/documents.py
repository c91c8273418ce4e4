"""Documents → sentences → ids, in this process or in several.

The main process reads documents and hands them out in batches of about a megabyte; workers cut sentences and pieces;
results come in the order of reading, so they do not depend on the number of workers, and only a few batches are in
memory at a time.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from bothways.data.store import id_dtype
from bothways.text.corpus import Document
from bothways.text.sentences import split_sentences
from bothways.text.tokenizer import Tokenizer

BATCH_CHARACTERS = 1 << 20  # 1 to 2 s of a worker's time, 5 ms to hand over


@dataclass(frozen=True)
class PreparedDocument:
    """A document cut into ids.

    ids: unsigned `[T]`, its S sentences end to end. sentence_lengths: int32 `[S]`. unknown: how many ids are `[UNK]`.
    """

    ids: np.ndarray
    sentence_lengths: np.ndarray
    unknown: int


def prepare_documents(
    documents: Iterator[tuple[int, Document]], tokenizer: Tokenizer, language: str, workers: int | None = None
) -> Iterator[tuple[int, PreparedDocument]]:
    """Prepare every document, in order, each with a number that goes with it; few are done here, before a worker
    process would have started.

    language: by whose rules sentences are cut. workers: processes; None: one a core.
    """
    workers = workers or os.cpu_count() or 1
    batches = _batches(documents)
    first = list(itertools.islice(batches, 2))
    if workers == 1 or len(first) < 2:
        for batch in itertools.chain(first, batches):
            yield from _with_numbers(batch, _prepare_batch(tokenizer, [document for _, document in batch], language))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (tokenizer.to_json(), language)) as pool:
        waiting: deque[tuple[list[tuple[int, Document]], Future[list[PreparedDocument]]]] = deque()
        try:
            for batch in itertools.chain(first, batches):
                waiting.append((batch, pool.submit(_work, [document for _, document in batch])))
                if len(waiting) > 2 * workers:  # enough for every worker to find a batch when it ends one
                    done, future = waiting.popleft()
                    yield from _with_numbers(done, future.result())
            while waiting:
                done, future = waiting.popleft()
                yield from _with_numbers(done, future.result())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _with_numbers(
    batch: list[tuple[int, Document]], prepared: list[PreparedDocument]
) -> Iterator[tuple[int, PreparedDocument]]:
    return zip((number for number, _ in batch), prepared, strict=True)


def _batches(documents: Iterable[tuple[int, Document]]) -> Iterator[list[tuple[int, Document]]]:
    batch: list[tuple[int, Document]] = []
    characters = 0
    for number, document in documents:
        batch.append((number, document))
        characters += len(document.text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _prepare_batch(tokenizer: Tokenizer, documents: list[Document], language: str) -> list[PreparedDocument]:
    sentences = [split_sentences(document, language) for document in documents]
    ids = iter(tokenizer.encode_ids([sentence for group in sentences for sentence in group]))
    prepared = []
    for group in sentences:
        pieces = [piece for piece in itertools.islice(ids, len(group)) if piece]
        flat = np.fromiter(itertools.chain.from_iterable(pieces), id_dtype(tokenizer.vocab_size))
        lengths = np.array([len(piece) for piece in pieces], dtype=np.int32)
        prepared.append(PreparedDocument(flat, lengths, int((flat == tokenizer.unk_id).sum())))
    return prepared


_worker_tokenizer: Tokenizer  # each worker process has one
_worker_language: str


def _start_worker(tokenizer_json: str, language: str) -> None:
    global _worker_tokenizer, _worker_language
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _worker_tokenizer = Tokenizer.from_json(tokenizer_json)
    _worker_language = language


def _work(documents: list[Document]) -> list[PreparedDocument]:
    return _prepare_batch(_worker_tokenizer, documents, _worker_language)
