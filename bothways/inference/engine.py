"""Running a model over many encoded sequences: longest first, packed to a token budget, results in the order given.

On a CPU several batches run at the same time, each on a share of the cores, so that no core waits for another after
every product; tokenising the next window of texts goes on beside it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import numpy as np
import torch

from bothways.batch import PackedBatch, cut_to_budget
from bothways.data.encoded import Encoded, pack_encoded
from bothways.data.tables import Row
from bothways.model.heads import Model, device_of
from bothways.tasks.base import Task

# On two AVX2 cores MiniLM in float32 is 5 % faster with 1,024 tokens than with 2,048 and 12 % than with 4,096, which
# leave the caches; a GPU wants its products large.
TOKEN_BUDGET = {"cpu": 1024, "cuda": 32768}
STREAMS = 8  # batches at the same time, at most
CHUNK_TEXTS = 8192  # texts that are tokenised and sorted together

Collate = Callable[[Sequence[Encoded]], dict[str, np.ndarray]]
Item = TypeVar("Item")
Made = TypeVar("Made")


def no_targets(encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
    """For heads that need nothing but tokens."""
    return {}


def run_batches(
    forward: Callable[[PackedBatch], Any],
    split: Callable[[Any, Sequence[Encoded], PackedBatch], Sequence[Any]],
    encoded: Sequence[Encoded],
    device: torch.device,
    *,
    collate: Collate = no_targets,
    token_budget: int | None = None,
    on_progress: Callable[[int], None] = lambda sequences: None,
) -> list[Any]:
    """Run `forward` on packed batches and give each sequence what `split` makes of its batch's scores, in order.

    split: (scores, the batch's sequences, the batch) → one result a sequence. on_progress: called with how many are
    done.
    """
    lengths = np.array([len(one.input_ids) for one in encoded], dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    budget = token_budget or TOKEN_BUDGET.get(device.type, TOKEN_BUDGET["cpu"])
    parts = [order[part] for part in cut_to_budget(lengths[order].tolist(), budget)]

    @torch.inference_mode()
    def scored(chosen: np.ndarray) -> tuple[np.ndarray, Sequence[Any]]:
        sequences = [encoded[index] for index in chosen]
        batch = pack_encoded(sequences, collate).to(device)
        return chosen, split(forward(batch), sequences, batch)

    results: list[Any] = [None] * len(encoded)
    done = 0
    for chosen, found in _at_the_same_time(scored, parts, device):
        for index, result in zip(chosen, found, strict=True):
            results[index] = result
        done += len(chosen)
        on_progress(done)
    return results


def _at_the_same_time(work: Callable[[Item], Made], items: Sequence[Item], device: torch.device) -> Iterator[Made]:
    """`work` on every item, as each is done; on a CPU by several threads that share the cores."""
    cores = torch.get_num_threads()
    streams = min(cores, STREAMS, len(items) // 2) if device.type == "cpu" else 1
    if streams < 2:
        yield from map(work, items)
        return
    left = iter(items)
    with ThreadPoolExecutor(streams, "bothways", _use_threads, (max(1, cores // streams),)) as pool:
        running: set[Future[Made]] = {pool.submit(work, item) for item in itertools.islice(left, 2 * streams)}
        try:
            while running:
                ready, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(work, item) for item in itertools.islice(left, len(ready))}
                for future in ready:
                    yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(cores)  # what a thread sets is what threads made later begin with


def _use_threads(number: int) -> None:
    torch.get_num_threads()  # at its first question a thread takes over what was last set anywhere
    torch.set_num_threads(number)


def ahead(make: Callable[[Item], Made], items: Iterator[Item]) -> Iterator[Made]:
    """`map(make, items)`, with the next one made by a thread of its own while this one is used."""
    with ThreadPoolExecutor(1, "bothways-ahead") as pool:
        coming: Future[Made] | None = None
        for item in items:
            ready, coming = coming, pool.submit(make, item)
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()


def encode_in_chunks(
    items: Sequence[Item], encode: Callable[[Sequence[Item]], list[Encoded]]
) -> Iterator[tuple[Sequence[Item], list[Encoded]]]:
    """The items in chunks of `CHUNK_TEXTS`, with what `encode` makes of each, so that not all tokens are in memory."""
    parts = (items[start : start + CHUNK_TEXTS] for start in range(0, len(items), CHUNK_TEXTS))
    if len(items) <= CHUNK_TEXTS:
        return ((part, encode(part)) for part in parts)
    return ahead(lambda part: (part, encode(part)), parts)


def truncated_rows(encoded: Sequence[Encoded]) -> int:
    """How many rows lost tokens."""
    return len({one.row for one in encoded if one.truncated})


Scores = list[list[np.ndarray]]


def score(
    model: Model, task: Task, encoded: Sequence[Encoded], on_progress: Callable[[int], None] = lambda sequences: None
) -> Scores:
    """For each row, in order, the scores of its sequences."""

    def split(scores: Any, sequences: Sequence[Encoded], batch: PackedBatch) -> list[np.ndarray]:
        return task.split(scores, sequences)

    device = device_of(model)
    scores = run_batches(model.eval(), split, encoded, device, collate=task.collate, on_progress=on_progress)
    return [
        [one for _, one in group]
        for _, group in itertools.groupby(zip(encoded, scores, strict=True), lambda pair: pair[0].row)
    ]


def decode(task: Task, scores: Scores, encoded: Sequence[Encoded], rows: Sequence[Row]) -> list[Any]:
    """One prediction a row."""
    groups = [list(group) for _, group in itertools.groupby(encoded, lambda one: one.row)]
    return [task.decode(*both) for both in zip(scores, groups, rows, strict=True)]


def predict(
    model: Model,
    task: Task,
    encoded: Sequence[Encoded],
    rows: Sequence[Row],
    on_progress: Callable[[int], None] = lambda sequences: None,
) -> list[Any]:
    """One prediction a row, of what `task.encode` made of the rows."""
    return decode(task, score(model, task, encoded, on_progress), encoded, rows)
