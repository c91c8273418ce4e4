"""The seed of dropout: a function of (seed, step, rank), so that a resumed run drops what the undisturbed one drops."""

from __future__ import annotations

import torch

from bothways.counter_random import mix


def seed_dropout(seed: int, step: int, rank: int) -> None:
    """Seed torch's generators for one step of one process.

    Within the step draws follow the order of the micro-batches, so another token budget draws otherwise.
    """
    torch.manual_seed(int(mix(seed, step, rank)) >> 1)  # torch takes 63 bits
