"""What compiled calls gain a step of pretraining, each by itself: the same step with and without them, in turns in one
process, by the CPU time of its thread, so that what else the machine does weighs little.

    python benchmarks/training_kernels.py [--sizes mini base] [--dropout 0 0.1] [--rounds 6] [--tokens 2048]

A step is one forward and backward pass on one thread; the optimizer is not in it. The losses and the gradients of all
ways are compared, too: the last column is the largest relative difference of the whole gradient.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import shared_data, show
from torch import Tensor

from bothways.data.prepare import prepare
from bothways.data.store import TokenStore
from bothways.model import lm_head, sublayer
from bothways.text.vocabulary import train_tokenizer
from bothways.train.dropout_seed import seed_dropout
from bothways.train.memory import hold_freed_memory
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.pretrain_plan import build_objective, loop_options, make_plan
from bothways.train.starting_point import starting_point
from bothways.train.step import Stepper

# By name: whether bias, GELU, dropout, residual and norm are compiled, and whether the cross-entropy is.
WAYS = {
    "torch": (False, False),
    "bias, GELU, dropout, residual and norm": (True, False),
    "cross-entropy": (False, True),
    "all": (True, True),
}
HAS_KERNELS = sublayer.has_training_kernels


def _choose(way: str) -> None:
    def answer(compiled: bool) -> Callable[[Tensor], bool]:
        return HAS_KERNELS if compiled else lambda tensor: False

    sublayer.has_training_kernels, lm_head.has_training_kernels = map(answer, WAYS[way])


def compare(store: TokenStore, options: PretrainOptions, rounds: int) -> list[list[object]]:
    objective = build_objective(options)
    model = starting_point(store, objective, options).model
    stepper = Stepper(model, objective, make_plan(store, options), loop_options(options, model.config))
    stepper.step(0)
    (batch,) = make_plan(store, options).micro_batches(1, 0, 1, 1 << 30)
    counts = objective.counts(batch.targets)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    grads: dict[str, Tensor] = {}
    for turn in range(rounds + 1):
        for way in list(WAYS)[:: 1 if turn % 2 else -1]:
            _choose(way)
            seed_dropout(0, 1, 0)
            began = time.thread_time()
            stepper._forward_and_backward(batch, counts, weight=1, last=True)
            seconds[way] += [time.thread_time() - began] if turn else []
            grads[way] = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
            stepper.optimizer.zero_grad(set_to_none=True)
    rows: list[list[object]] = []
    for way, taken in seconds.items():
        gain = statistics.median(before / now for before, now in zip(seconds["torch"], taken, strict=True)) - 1
        off = float((grads[way] - grads["torch"]).norm() / grads["torch"].norm())
        cells = [options.size, options.dropout, way, batch.num_tokens / statistics.median(taken), f"{gain:+.1%}"]
        rows.append([*cells, f"{off:.0e}"])
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["mini"])
    parser.add_argument("--dropout", nargs="+", type=float, default=[0.0, 0.1])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    source, folder, rows = str(shared_data() / "wikipedia-small.jsonl.zst"), Path(tempfile.mkdtemp()), []
    store = prepare([source], train_tokenizer(source, vocab_size=8192), folder / "store")
    with hold_freed_memory():
        for size in chosen.sizes:
            for dropout in chosen.dropout:
                options = PretrainOptions(
                    size=size, steps=1000, dropout=dropout, tokens_per_step=chosen.tokens, precision=chosen.precision
                )
                rows += compare(store, options, chosen.rounds)
    header = ["size", "dropout", "compiled", "tokens a second of CPU time", "gain", "gradient differs by"]
    show("training-kernels", header, rows, precision=chosen.precision, tokens=chosen.tokens, rounds=chosen.rounds)


if __name__ == "__main__":
    main()
