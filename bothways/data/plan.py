"""The plan of pretraining: the k-th batch as a pure function of (data, seed, k).

1. An epoch visits every chunk of the store's split once, in an order drawn for that epoch.
2. Consecutive chunks in that order form blocks of about `BLOCK_TOKENS` tokens.
3. An objective's `ExampleMaker` makes examples of a block's documents: spans, not copies (`data/spans.py`).
4. The examples of a block are shuffled. Each has a key, from which its masks follow.
5. A step takes the next examples until one more would not fit `tokens_per_step`, on into the next block where needed.
6. The step's examples are shared out among the processes and cut to the micro-batches' token budget
   (`data/micro_batches.py`).
7. The tokens of each micro-batch are gathered and masked.

Where step k begins depends on the lengths of all examples before it, so the plan keeps a cursor of four integers. A
resumed run restores it and starts at once. Labelled rows, which fit in memory, need no cursor (`data/row_plan.py`).

What it costs, measured on 1,092 articles of Wikipedia (4.2 M tokens, 2-core machine):

- Steps are not quite full: 99.3 % of 8,192 tokens at sequence length 128, 97.1 % at 512; 99.96 % of 131,072 at 128.
- Sentence pairs lose text to cutting: 11 % of an epoch's tokens are in no example at 128, 3 % at 512; 20 % are read
  twice, the second time as another document's segment B. Full sentences and next tokens lose none.
- Two blocks take 45 MB (80 MB with ids of 32 bits), 75 MB while the second is made, however large the store is.
- The pairs of a block of 8 M tokens take about a second to make, a batch of 8,192 tokens 2 ms.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bothways.batch import PackedBatch
from bothways.counter_random import generator, mix
from bothways.data.micro_batches import longest_first, share_among_ranks
from bothways.data.spans import ExampleMaker, Spans
from bothways.data.store import SplitName, TokenStore, join_chunks
from bothways.errors import UserError, option
from bothways.token_budget import UNLIMITED, cut_to_budget

BLOCK_TOKENS = 1 << 23  # large enough for a good shuffle; its price is in the module's docstring


@dataclass(frozen=True)
class Cursor:
    """Where a step begins: at example number `example` of block number `block` in `epoch`, all from 0."""

    step: int = 0
    epoch: int = 0
    block: int = 0
    example: int = 0


@dataclass(frozen=True)
class ExampleBlock:
    """Examples in the order of use, and the tokens that they are spans of.

    tokens: unsigned, of a whole block, or of several end to end. spans: E examples. lengths: tokens the model reads of
    each, int64 `[E]`. keys: uint64 `[E]`, what is random in an example follows from its key.
    """

    tokens: np.ndarray
    spans: Spans
    lengths: np.ndarray
    keys: np.ndarray

    @classmethod
    def join(cls, blocks: Sequence[ExampleBlock]) -> ExampleBlock:
        """The examples of several blocks in turn. Copies tokens, where there is more than one block."""
        if len(blocks) == 1:
            return blocks[0]
        offsets = np.cumsum([0, *(len(block.tokens) for block in blocks[:-1])]).tolist()
        return cls(
            np.concatenate([block.tokens for block in blocks]),
            Spans.join([block.spans for block in blocks], offsets),
            np.concatenate([block.lengths for block in blocks]),
            np.concatenate([block.keys for block in blocks]),
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, index: np.ndarray | slice) -> ExampleBlock:
        """The examples of an index, in its order, of the same tokens."""
        return ExampleBlock(self.tokens, self.spans.take(index), self.lengths[index], self.keys[index])

    @cached_property
    def ends(self) -> np.ndarray:
        """The running sum of lengths, int64 `[E]`: where each example ends, counted in tokens read."""
        return np.cumsum(self.lengths)


class PretrainingPlan:
    """Packed batches of an objective's examples from one split of a store. Raises UserError for an empty split."""

    def __init__(
        self,
        store: TokenStore,
        maker: ExampleMaker,
        *,
        tokens_per_step: int,
        seed: int,
        split: SplitName = "train",
        block_tokens: int = BLOCK_TOKENS,
    ) -> None:
        sequence_length = maker.options.sequence_length
        if tokens_per_step < sequence_length:
            raise UserError(
                f"{option('tokens_per_step', tokens_per_step)} is less than one sequence "
                f"({option('sequence_length', sequence_length)})"
            )
        self._split = store.split(split)
        if not self._split.tokens:
            raise UserError(f"{store.directory}: the {split} split is empty")
        self.tokenizer = store.tokenizer()
        self.maker = maker
        self.tokens_per_step, self.seed = tokens_per_step, seed
        self.documents, self.tokens = self._split.documents, self._split.tokens
        self.num_blocks = max(1, min(self._split.tokens // block_tokens, self._split.num_chunks))
        self.identity: dict[str, Any] = {  # what a resumed run must share
            "store": store.fingerprint,
            "tokenizer": store.tokenizer_fingerprint,
            "sequence_length": sequence_length,
            "objective": _fingerprint(maker.identity),
            "tokens_per_step": tokens_per_step,
            "seed": seed,
        }
        self._cursors = {0: Cursor()}
        self._order: tuple[int, np.ndarray] = (-1, np.array([]))  # of the chunks in the epoch asked for last
        self._blocks: dict[tuple[int, int], ExampleBlock] = {}  # the last two, by epoch and number

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> PackedBatch:
        """This rank's share of the step, as one batch."""
        return self.micro_batches(step, rank, world_size, token_budget=UNLIMITED)[0]

    def micro_batches(self, step: int, rank: int, world_size: int, token_budget: int) -> list[PackedBatch]:
        """This rank's share of the step, longest examples first, cut so that each batch fits the token budget.

        Every rank gets the same number of batches, as processes that work on one model must; `share_among_ranks` says
        when one of them has to exceed the budget.
        Raises UserError when the step has fewer examples than there are ranks.
        """
        parts, _ = self._examples_of_step(self.cursor(step))
        examples = ExampleBlock.join(parts)
        part_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        shares = share_among_ranks(examples.lengths, rank, world_size, token_budget)
        # where a step crosses into the next block, a batch has the examples of the earlier block first
        ordered = [share[np.argsort(part_of[share], kind="stable")] for share in shares]
        return [self._batch(examples.take(index), step) for index in ordered]

    def evaluation_batches(self, token_budget: int, max_tokens: int) -> Iterator[PackedBatch]:
        """One pass over the split for evaluation: the same examples and masks each time.

        Reads at most `max_tokens` tokens, but at least one example; each batch fits the token budget.
        """
        return (batch for batch, _ in self.evaluation_share(token_budget, max_tokens, 0, 1))

    def evaluation_share(
        self, token_budget: int, max_tokens: int, rank: int, world_size: int
    ) -> Iterator[tuple[PackedBatch, bool]]:
        """One rank's batches among those of `evaluation_batches`, which ranks take in turn, and whether it counts: a
        rank for which the last turn has none repeats the last one, as all must run a model that they share."""
        batches = self._evaluation_examples(token_budget, max_tokens)
        while turn := list(itertools.islice(batches, world_size)):
            yield self._batch(turn[min(rank, len(turn) - 1)], step=0), rank < len(turn)

    def _evaluation_examples(self, token_budget: int, max_tokens: int) -> Iterator[ExampleBlock]:
        """The examples of each batch of an evaluation."""
        seen = 0
        for number in range(self.num_blocks):
            block = self.block(0, number)
            limit = max_tokens - seen if seen else max(max_tokens, int(block.ends[0]))
            read = block.take(slice(0, int(np.searchsorted(block.ends, limit, side="right"))))
            order = longest_first(read.lengths)
            for cut in cut_to_budget(read.lengths[order].tolist(), token_budget):
                yield read.take(order[cut])
            seen += int(block.ends[-1])
            if seen >= max_tokens:
                return

    def has_examples(self) -> bool:
        """False for a split of a few words, which make no example."""
        try:
            self.block(0, 0)
        except UserError:
            return False
        return True

    def cursor(self, step: int) -> Cursor:
        """Where the step begins. Steps in a row are free; any other is walked to from the nearest known one before."""
        known = max(known for known in self._cursors if known <= step)
        cursor = self._cursors[known]
        while cursor.step < step:
            cursor = self._examples_of_step(cursor)[1]
        self._cursors = {0: Cursor(), cursor.step: cursor}
        return cursor

    def cursor_json(self, step: int) -> dict[str, int]:
        """Where the step begins, as a checkpoint keeps it."""
        return asdict(self.cursor(step))

    def restore(self, cursor: dict[str, int]) -> None:
        """Make a cursor from an earlier process known."""
        restored = Cursor(**cursor)
        self._cursors[restored.step] = restored

    def block(self, epoch: int, number: int) -> ExampleBlock:
        """A block of an epoch, both from 0. The last two are kept, as a step may cross from one into the next.

        Raises UserError where its documents give no example.
        """
        key = (epoch, number)
        if key not in self._blocks:
            self._blocks = dict(list(self._blocks.items())[-1:])  # before the new one is made: no third is in memory
            self._blocks[key] = self._make_block(epoch, number)
        return self._blocks[key]

    def _examples_of_step(self, cursor: Cursor) -> tuple[list[ExampleBlock], Cursor]:
        """The examples of the step that begins at the cursor, by block, and where the next step begins."""
        epoch, number, example = cursor.epoch, cursor.block, cursor.example
        room = self.tokens_per_step
        parts: list[ExampleBlock] = []
        while True:
            block = self.block(epoch, number)
            before = block.ends[example - 1] if example else 0
            end = int(np.searchsorted(block.ends, before + room, side="right"))
            if end > example:
                parts.append(block.take(slice(example, end)))
                room -= int(block.ends[end - 1] - before)
            if end < len(block):
                return parts, Cursor(cursor.step + 1, epoch, number, end)
            example = 0
            epoch, number = (epoch + 1, 0) if number + 1 == self.num_blocks else (epoch, number + 1)

    def _make_block(self, epoch: int, number: int) -> ExampleBlock:
        chunks = self._split.chunks(self._chunks_of_block(epoch, number).tolist())
        chunk = self.maker.lay_out(join_chunks(chunks))
        rng = generator(self.seed, epoch, 1 + number)
        spans = self.maker.spans(chunk, rng)
        if not len(spans):
            raise UserError("the corpus is too small: its sentences give no example to train on")
        shuffled = rng.permutation(len(spans))
        spans = spans.take(shuffled)
        return ExampleBlock(chunk.tokens, spans, self.maker.lengths(spans), mix(self.seed, epoch, number, shuffled))

    def _chunks_of_block(self, epoch: int, number: int) -> np.ndarray:
        """The chunks of a block: a part of the epoch's order, as `np.array_split` cuts it, whose views of all blocks
        and whose order, made anew for each of them, are what a store of 10^12 tokens would wait for."""
        if self._order[0] != epoch:
            order = generator(self.seed, epoch, 0).permutation(self._split.num_chunks)
            self._order = (epoch, order.astype(np.int32))
        order = self._order[1]
        each, longer = divmod(len(order), self.num_blocks)
        begin = number * each + min(number, longer)
        return order[begin : begin + each + (number < longer)]

    def _batch(self, examples: ExampleBlock, step: int) -> PackedBatch:
        return self.maker.batch(examples.tokens, examples.spans, examples.keys, step)


def _fingerprint(identity: list[str]) -> str:
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
