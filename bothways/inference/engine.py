"""Running a model over many encoded rows: longest first, packed to a token budget, results in the order given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from bothways.data.packing import PackedBatch, fill_budget, pack_sequences
from bothways.tasks.base import Encoded

TOKEN_BUDGET = 8192


def batches(encoded: Sequence[Encoded], token_budget: int = TOKEN_BUDGET) -> Iterator[tuple[np.ndarray, PackedBatch]]:
    """Pack rows into batches; yields which rows (int64 `[N]`) each batch holds."""
    lengths = np.array([len(one.input_ids) for one in encoded], dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    for part in fill_budget(lengths[order].tolist(), token_budget):
        chosen = order[part]
        yield chosen, pack_sequences([(encoded[row].input_ids, encoded[row].token_type_ids) for row in chosen])


@torch.inference_mode()
def run(
    forward: Callable[[PackedBatch], Any],
    split: Callable[[Any, Sequence[Encoded], PackedBatch], Sequence[Any]],
    encoded: Sequence[Encoded],
    device: torch.device,
    token_budget: int = TOKEN_BUDGET,
    on_progress: Callable[[int], None] = lambda rows: None,
) -> list[Any]:
    """Run `forward` on packed batches and give each row what `split` makes of its batch's scores, in order.

    split: (scores, the batch's rows, the batch) → one result a row. on_progress: called with the rows done so far.
    """
    results: list[Any] = [None] * len(encoded)
    done = 0
    for chosen, batch in batches(encoded, token_budget):
        batch = batch.to(device)
        rows = [encoded[index] for index in chosen]
        for index, result in zip(chosen, split(forward(batch), rows, batch), strict=True):
            results[index] = result
        done += len(chosen)
        on_progress(done)
    return results
