"""The plan: the k-th batch as a pure function of (data, seed, k).

Pretraining: an epoch visits every chunk of the store once, in an order drawn for that epoch. Consecutive chunks in that
order form blocks of about `BLOCK_TOKENS`; a block's documents become examples, the examples are shuffled, and steps
take them in turn until their token budget is full. Memory is that of two blocks however large the store is. Where step
k begins depends on the lengths of all examples before it, so the plan keeps a cursor of four integers; a resumed run
restores it and starts at once. Labelled rows, which fit in memory, need no cursor (`RowPlan`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from bothways.batch import PackedBatch, cut_to_budget
from bothways.counter_random import mix
from bothways.data.examples import Examples
from bothways.data.store import Chunk, SplitName, TokenStore
from bothways.errors import UserError

BLOCK_TOKENS = 1 << 23


@dataclass(frozen=True)
class Cursor:
    """Where a step begins: the `example`-th of `block` in `epoch`."""

    step: int = 0
    epoch: int = 0
    block: int = 0
    example: int = 0


@dataclass(frozen=True)
class Block:
    """Examples of some chunks, in order of use. tokens `[T]`, examples `[E, 5]`, lengths `[E]`, keys uint64 `[E]`."""

    tokens: np.ndarray
    examples: np.ndarray
    lengths: np.ndarray
    keys: np.ndarray
    ends: np.ndarray  # running sum of lengths


class PretrainingPlan:
    """Packed batches of an objective's examples from one split of a store."""

    def __init__(
        self,
        store: TokenStore,
        examples: Examples,
        *,
        tokens_per_step: int,
        seed: int,
        split: SplitName = "train",
        block_tokens: int = BLOCK_TOKENS,
    ) -> None:
        sequence_length = examples.options.sequence_length
        if tokens_per_step < sequence_length:
            raise UserError(
                f"--tokens-per-step {tokens_per_step} is less than one sequence (--sequence-length {sequence_length})"
            )
        self._split = store.split(split)
        if not self._split.tokens:
            raise UserError(f"{store.directory}: the {split} split is empty")
        self.tokenizer = store.tokenizer()
        self.examples = examples
        self.tokens_per_step, self.seed = tokens_per_step, seed
        self.documents, self.tokens = self._split.documents, self._split.tokens
        self.num_blocks = max(1, min(self._split.tokens // block_tokens, self._split.num_chunks))
        self.identity: dict[str, Any] = {
            "store": store.fingerprint,
            "tokenizer": store.tokenizer_fingerprint,
            "sequence_length": sequence_length,
            "objective": _fingerprint(examples.description),
            "tokens_per_step": tokens_per_step,
            "seed": seed,
        }
        self._cursors = {0: Cursor()}
        self.block = lru_cache(maxsize=2)(self._make_block)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> PackedBatch:
        """This rank's share of the step, as one batch."""
        return self.micro_batches(step, rank, world_size, token_budget=1 << 62)[0]

    def micro_batches(self, step: int, rank: int, world_size: int, token_budget: int) -> list[PackedBatch]:
        """This rank's share of the step, longest examples first, cut so that each batch fits the token budget.

        Every rank gets the same number of batches, as processes that work on one model must; `share_among_ranks` says
        when one of them has to exceed the budget.
        Raises UserError when the step has fewer examples than there are ranks.
        """
        chosen, _ = self._gather(self.cursor(step))
        lengths = np.concatenate([block.lengths[rows] for block, rows in chosen])
        source = np.repeat(np.arange(len(chosen)), [len(rows) for _, rows in chosen])
        rows = np.concatenate([rows for _, rows in chosen])
        blocks = [block for block, _ in chosen]
        return [
            self._pack(blocks, source[part], rows[part], step)
            for part in share_among_ranks(lengths, rank, world_size, token_budget)
        ]

    def evaluation_batches(self, token_budget: int, max_tokens: int) -> Iterator[PackedBatch]:
        """One pass over the split, at most `max_tokens` but at least one example: the same examples and masks each
        time, for evaluation."""
        seen = 0
        for number in range(self.num_blocks):
            block = self.block(0, number)
            first = np.flatnonzero(block.ends <= max(max_tokens - seen, int(block.ends[0]) if not seen else 0))
            order = first[np.argsort(-block.lengths[first], kind="stable")]
            for part in cut_to_budget(block.lengths[order].tolist(), token_budget):
                yield self._pack([block], np.zeros(len(order[part]), dtype=np.int64), order[part], 0)
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
            cursor = self._gather(cursor)[1]
        self._cursors = {0: Cursor(), cursor.step: cursor}
        return cursor

    def cursor_json(self, step: int) -> dict[str, int]:
        return asdict(self.cursor(step))

    def restore(self, cursor: dict[str, int]) -> None:
        """Make a cursor from an earlier process known."""
        restored = Cursor(**cursor)
        self._cursors[restored.step] = restored

    def _gather(self, cursor: Cursor) -> tuple[list[tuple[Block, np.ndarray]], Cursor]:
        """The examples of the step that begins at the cursor, and where the next one begins."""
        epoch, number, example = cursor.epoch, cursor.block, cursor.example
        room = self.tokens_per_step
        chosen: list[tuple[Block, np.ndarray]] = []
        while True:
            block = self.block(epoch, number)
            before = block.ends[example - 1] if example else 0
            end = int(np.searchsorted(block.ends, before + room, side="right"))
            if end > example:
                chosen.append((block, np.arange(example, end)))
                room -= int(block.ends[end - 1] - before)
            if end < len(block.lengths):
                return chosen, Cursor(cursor.step + 1, epoch, number, end)
            example = 0
            epoch, number = (epoch + 1, 0) if number + 1 == self.num_blocks else (epoch, number + 1)

    def _make_block(self, epoch: int, number: int) -> Block:
        order = _generator(self.seed, epoch, 0).permutation(self._split.num_chunks)
        joined = _join([self._split.chunk(index) for index in np.array_split(order, self.num_blocks)[number]])
        chunk = self.examples.arrange(joined)
        rng = _generator(self.seed, epoch, 1 + number)
        examples = self.examples.examples(chunk, rng)
        if not len(examples):
            raise UserError("the corpus is too small: its sentences give no example to train on")
        shuffled = rng.permutation(len(examples))
        examples = examples[shuffled]
        lengths = self.examples.lengths(examples)
        keys = mix(self.seed, epoch, number, shuffled)
        return Block(chunk.tokens, examples, lengths, keys, np.cumsum(lengths))

    def _pack(self, blocks: list[Block], source: np.ndarray, rows: np.ndarray, step: int) -> PackedBatch:
        parts = []
        for index in np.unique(source):  # nearly always one: a step rarely crosses into the next block
            block, of_block = blocks[index], rows[source == index]
            examples = block.examples[of_block]
            parts.append((*self.examples.gather(block.tokens, examples), examples, block.keys[of_block]))
        ids, segments, examples, keys = (np.concatenate(column) for column in zip(*parts, strict=True))
        return self.examples.batch(ids, segments, examples, keys, step)


def share_among_ranks(lengths: np.ndarray, rank: int, world_size: int, token_budget: int) -> list[np.ndarray]:
    """One rank's examples in each of its micro-batches: `[k]` indices into lengths, longest first.

    Ranks take turns in order of length, so no example of a rank is longer than the first rank's at the same place: the
    first rank's cuts fit the budget for all. A rank that has one example fewer lacks it in the last cut. Where that cut
    would be empty, the ones before end sooner, so that each later one has an example: the cut that ends sooner gets
    shorter, and those behind it hold one example each.

    The budget can be exceeded in one case only, where each of the first rank's examples needs a batch by itself and
    another rank has fewer: 60, 60 and 60 tokens, two ranks, a budget of 100. Then the examples of the last, incomplete
    turn join the batches of the turn before, the longest the shortest.
    """
    turns, left = divmod(len(lengths), world_size)
    if not turns:
        raise UserError(
            f"a step of {len(lengths)} examples cannot be shared out among {world_size} processes; "
            "raise --tokens-per-step"
        )
    order = np.argsort(-lengths, kind="stable")
    own, longest = order[rank::world_size], lengths[order[::world_size]].tolist()
    cuts = list(cut_to_budget(longest, token_budget))
    # as many batches of about one size: a small last one would cost as many kernel calls as a full one
    even = list(cut_to_budget(longest, min(token_budget, -(-sum(longest) // len(cuts)) + longest[0])))
    ends = [cut.stop for cut in (even if len(even) == len(cuts) else cuts)]
    if left and len(ends) > turns:
        del ends[-2]
        full = turns * world_size
        joins = full + world_size - 1 - rank
        own = np.concatenate([order[rank:full:world_size], order[joins : joins + 1]])
    ends = [min(end, len(own) - later) for end, later in zip(ends, reversed(range(len(ends))), strict=True)]
    return np.split(own, ends[:-1])


def _join(chunks: list[Chunk]) -> Chunk:
    """Chunks end to end, as one."""

    def offsets(columns: list[np.ndarray]) -> np.ndarray:
        lengths = np.concatenate([np.diff(column) for column in columns])
        return np.concatenate([[0], np.cumsum(lengths)])

    return Chunk(
        np.concatenate([chunk.tokens for chunk in chunks]),
        offsets([chunk.sentence_offsets for chunk in chunks]),
        offsets([chunk.document_offsets for chunk in chunks]),
    )


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=int(mix(*key))))


def _fingerprint(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
