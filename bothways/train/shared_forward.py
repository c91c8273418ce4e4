"""Evaluation shared out among the processes of a run: each runs its share of the batches that one process would run,
and all get all results, so that predictions and figures are those of one process to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np

from bothways.errors import UserError
from bothways.inference.engine import Forward, RunForward, run_here
from bothways.train.distributed import World


def run_shared(world: World) -> RunForward:
    """What runs a forward pass on all processes, which must all call it with the same sequences, and gives each of them
    all results. Raises UserError on all of them where it is raised on one."""
    return run_here if world.size == 1 else lambda forward: _run(forward, world)


def _run(forward: Forward, world: World) -> list[Any]:
    results: list[Any] = []
    failure = ""
    try:
        results = forward.run_share(world.rank, world.size)
    except UserError as error:
        failure = str(error)
    own = np.array([index for index, result in enumerate(results) if result is not None], dtype=np.int64)
    shares = world.gather((failure, own, [results[index] for index in own]))
    if failures := [failure for failure, _, _ in shares if failure]:
        raise UserError(failures[0])
    whole: list[Any] = [None] * len(forward.encoded)
    for _, indices, found in shares:
        for index, result in zip(indices.tolist(), found, strict=True):
            whole[index] = result
    return whole
