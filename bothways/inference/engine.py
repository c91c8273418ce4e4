"""Running a model over many encoded sequences: longest first, packed to a token budget, results in the order given."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from bothways.data.packing import PackedBatch, fill_budget
from bothways.data.plan import pack_encoded
from bothways.data.tables import Row
from bothways.model.heads import Bert
from bothways.tasks.base import Encoded, Task

TOKEN_BUDGET = 8192
Collate = Callable[[Sequence[Encoded]], dict[str, np.ndarray]]


def no_targets(encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
    """For heads that need nothing but tokens."""
    return {}


def batches(
    encoded: Sequence[Encoded], collate: Collate, token_budget: int = TOKEN_BUDGET
) -> Iterator[tuple[np.ndarray, PackedBatch]]:
    """Pack sequences into batches; yields which of them (int64 `[N]`) each batch holds."""
    lengths = np.array([len(one.input_ids) for one in encoded], dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    for part in fill_budget(lengths[order].tolist(), token_budget):
        chosen = order[part]
        yield chosen, pack_encoded([encoded[index] for index in chosen], collate)


@torch.inference_mode()
def run(
    forward: Callable[[PackedBatch], Any],
    split: Callable[[Any, Sequence[Encoded], PackedBatch], Sequence[Any]],
    encoded: Sequence[Encoded],
    device: torch.device,
    *,
    collate: Collate = no_targets,
    token_budget: int = TOKEN_BUDGET,
    on_progress: Callable[[int], None] = lambda sequences: None,
) -> list[Any]:
    """Run `forward` on packed batches and give each sequence what `split` makes of its batch's scores, in order.

    split: (scores, the batch's sequences, the batch) → one result a sequence. on_progress: called with how many are
    done.
    """
    results: list[Any] = [None] * len(encoded)
    done = 0
    for chosen, batch in batches(encoded, collate, token_budget):
        batch = batch.to(device)
        sequences = [encoded[index] for index in chosen]
        for index, result in zip(chosen, split(forward(batch), sequences, batch), strict=True):
            results[index] = result
        done += len(chosen)
        on_progress(done)
    return results


Scores = list[list[np.ndarray]]


def score(
    model: Bert, task: Task, encoded: Sequence[Encoded], on_progress: Callable[[int], None] = lambda sequences: None
) -> Scores:
    """For each row, in order, the scores of its sequences."""

    def split(scores: Any, sequences: Sequence[Encoded], batch: PackedBatch) -> list[np.ndarray]:
        return task.split(scores, sequences)

    device = next(model.parameters()).device
    scores = run(model.eval(), split, encoded, device, collate=task.collate, on_progress=on_progress)
    return [
        [one for _, one in group]
        for _, group in itertools.groupby(zip(encoded, scores, strict=True), lambda pair: pair[0].row)
    ]


def decode(task: Task, scores: Scores, encoded: Sequence[Encoded], rows: Sequence[Row]) -> list[Any]:
    """One prediction a row."""
    groups = [list(group) for _, group in itertools.groupby(encoded, lambda one: one.row)]
    return [task.decode(*both) for both in zip(scores, groups, rows, strict=True)]


def predict(
    model: Bert,
    task: Task,
    encoded: Sequence[Encoded],
    rows: Sequence[Row],
    on_progress: Callable[[int], None] = lambda sequences: None,
) -> list[Any]:
    """One prediction a row, of what `task.encode` made of the rows."""
    return decode(task, score(model, task, encoded, on_progress), encoded, rows)
