"""Running a model over many encoded sequences: longest first, packed to a token budget, results in the order given.

A question to a model is a generator: it tokenises, yields each `Forward` that it needs, is sent what came of it, and
returns its answer. `complete` runs one here and now; the server runs those of many callers in one batch.

On a CPU several batches run at the same time, each on a share of the cores, so that no core waits for another after
every product; tokenising the next chunk of texts goes on beside it. A GPU computes one batch while the next is packed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch

from bothways.batch import PackedBatch
from bothways.data.encoded import Encoded, pack_encoded
from bothways.data.tables import Row
from bothways.errors import UserError
from bothways.hardware import inference_batch_tokens, keep_number_of_threads, memory_errors, use_threads
from bothways.model.heads import Model, device_of
from bothways.prefetch import prefetch
from bothways.progress import OnProgress, no_progress
from bothways.tasks.base import Task
from bothways.token_budget import cut_to_budget

# Batches that run at the same time on a CPU, at most, as each of them takes memory: where there are more cores, several
# share a batch. Chosen by hand, not measured.
MAX_CONCURRENT_BATCHES = 8
# On a GPU: it works through the one that another thread has handed to it while results are taken of the other.
GPU_BATCHES = 2
# Batches handed out for each that runs, so that a thread that is done finds the next one waiting.
QUEUED_PER_THREAD = 2
# Texts that are tokenised and sorted by length together: enough that the sequences of a batch are nearly of one length,
# few enough that their tokens fit in memory. Chosen by hand, not measured.
CHUNK_TEXTS = 8192

# Rows whose scores are in memory together: as many as a part of a bulk job has at most, fewer of thousands of labels.
CHUNK_ROWS = 1 << 15
MIN_CHUNK_ROWS = 256
MAX_CHUNK_SCORES = 1 << 24  # 64 MB in float32, a few times that while predictions are made of them
MAX_KEPT_SCORES = 1 << 26  # 256 MB in float32, which a machine has that trains: 13,000 rows of 5,000 labels

Collate = Callable[[Sequence[Encoded]], dict[str, np.ndarray]]
# (a batch's scores, its sequences, the batch) → one result a sequence
SplitScores = Callable[[Any, Sequence[Encoded], PackedBatch], Sequence[Any]]
Scores = list[list[np.ndarray]]  # for each row the scores of its sequences

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")
_Result = TypeVar("_Result")


def no_targets(encoded: Sequence[Encoded]) -> dict[str, np.ndarray]:
    """The targets of a batch for heads that need nothing but tokens: none."""
    return {}


@dataclass(frozen=True)
class Forward:
    """Sequences that a model is to read, as `run_batches` takes them; what comes of it is a result for each.

    key: forwards of one loaded model with the same key may share batches, whichever of them is run. goes_on_at_once:
    whether what its question does with the results is short and leads to the next forward.
    """

    goes_on_at_once: ClassVar[bool] = False

    model: Callable[[PackedBatch], Any]
    split: SplitScores
    encoded: Sequence[Encoded]
    device: torch.device
    key: tuple[Any, ...]
    collate: Collate = no_targets
    on_progress: OnProgress = no_progress

    def run(self) -> list[Any]:
        """A result for each sequence, in the order given."""
        return self.run_share(0, 1)

    def run_share(self, rank: int, world_size: int) -> list[Any]:
        """As `run`, of every `world_size`-th batch only, beginning with number `rank`; None for the sequences of the
        others. The batches are those of `run`, and so the results are the same to the bit."""
        lengths = np.array([len(sequence.input_ids) for sequence in self.encoded], dtype=np.int64)
        order = np.argsort(-lengths, kind="stable")
        cuts = list(cut_to_budget(lengths[order].tolist(), inference_batch_tokens(self.device)))[rank::world_size]
        results: list[Any] = [None] * len(self.encoded)
        done = 0
        for chosen, found in _map_concurrently(self._run_batch, [order[cut] for cut in cuts], self.device):
            for index, result in zip(chosen, found, strict=True):
                results[index] = result
            done += len(chosen)
            self.on_progress(done)
        return results

    @torch.inference_mode()
    def _run_batch(self, chosen: np.ndarray) -> tuple[np.ndarray, Sequence[Any]]:
        sequences = [self.encoded[index] for index in chosen]
        batch = pack_encoded(sequences, self.collate)
        with memory_errors(self.device, f"a batch of {batch.num_tokens:,} tokens"):
            batch = (batch.pinned() if self.device.type == "cuda" else batch).to(self.device)
            return chosen, self.split(self.model(batch), sequences, batch)


RunForward = Callable[[Forward], list[Any]]  # as `run_here`, which is the usual one
Question = Generator[Forward, list[Any], _Result]  # yields what is to be read, and is sent the results


def run_here(forward: Forward) -> list[Any]:
    """The forward's own `run`, whatever kind of one it is."""
    return forward.run()


def complete(question: Question[_Result], run: RunForward = run_here) -> _Result:
    """The answer to a question, each of its forward passes run here and now, by `run`."""
    try:
        forward = next(question)
        while True:
            forward = question.send(run(forward))
    except StopIteration as end:
        answer: _Result = end.value
        return answer
    finally:
        question.close()


def run_batches(
    forward: Callable[[PackedBatch], Any],
    split: SplitScores,
    encoded: Sequence[Encoded],
    device: torch.device,
    *,
    collate: Collate = no_targets,
    on_progress: OnProgress = no_progress,
) -> list[Any]:
    """What `split` makes of each sequence's share of `forward`, in the order given.

    collate: the targets of a batch. on_progress: called with how many sequences are done.
    """
    return Forward(forward, split, encoded, device, (), collate, on_progress).run()


def batches_at_once(device: torch.device) -> int:
    """How many batches `run_batches` has to have for all cores of a CPU to be busy, each with batches of its own; 1
    where a batch has the whole device."""
    cores = torch.get_num_threads()
    return 2 * min(cores, MAX_CONCURRENT_BATCHES) if device.type == "cpu" and cores > 1 else 1


def _map_concurrently(
    function: Callable[[_Item], _Made], items: Sequence[_Item], device: torch.device
) -> Iterator[_Made]:
    """`function` of every item, in the order in which they are done, by several threads; on a CPU they share the
    cores."""
    with keep_number_of_threads() as cores:
        at_once = min(cores, MAX_CONCURRENT_BATCHES) if device.type == "cpu" else GPU_BATCHES
        workers = min(at_once, len(items) // 2)
        if workers < 2:
            yield from map(function, items)
            return
        yield from _map_in_threads(function, items, workers, max(1, cores // workers))


def _map_in_threads(
    function: Callable[[_Item], _Made], items: Sequence[_Item], workers: int, threads: int
) -> Iterator[_Made]:
    """`function` of every item, in the order in which they are done, by so many workers with so many threads each."""
    waiting = iter(items)
    with ThreadPoolExecutor(workers, "bothways", use_threads, (threads,)) as pool:
        first = itertools.islice(waiting, QUEUED_PER_THREAD * workers)
        running: set[Future[_Made]] = {pool.submit(function, item) for item in first}
        try:
            while running:
                ready, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(function, item) for item in itertools.islice(waiting, len(ready))}
                for future in ready:
                    yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def encode_in_chunks(
    items: Sequence[_Item], encode: Callable[[Sequence[_Item]], list[Encoded]]
) -> Iterator[tuple[Sequence[_Item], list[Encoded]]]:
    """The items in chunks of `CHUNK_TEXTS`, with what `encode` makes of each, so that not all tokens are in memory."""
    chunks = (items[start : start + CHUNK_TEXTS] for start in range(0, len(items), CHUNK_TEXTS))
    if len(items) <= CHUNK_TEXTS:
        return ((chunk, encode(chunk)) for chunk in chunks)
    return prefetch(lambda chunk: (chunk, encode(chunk)), chunks)


def truncated_rows(encoded: Sequence[Encoded]) -> int:
    """How many rows lost tokens."""
    return len({sequence.row for sequence in encoded if sequence.truncated})


def score(
    model: Model,
    task: Task,
    encoded: Sequence[Encoded],
    on_progress: OnProgress = no_progress,
    run: RunForward = run_here,
) -> Scores:
    """For each row, in order, the scores of its sequences, as `task.split` gives them.

    Raises UserError for scores that are NaN or infinite.
    """
    return complete(ask_scores(model, task, encoded, on_progress), run)


def ask_scores(model: Model, task: Task, encoded: Sequence[Encoded], on_progress: OnProgress) -> Question[Scores]:
    """As `score`."""

    def split(scores: Any, sequences: Sequence[Encoded], batch: PackedBatch) -> list[np.ndarray]:
        found = task.split(scores, sequences)
        if any(isinstance(part, np.ndarray) and not np.isfinite(part).all() for part in found):
            raise UserError("the scores are NaN or infinite: the model's weights are damaged, or its training diverged")
        return found

    scores = yield Forward(model.eval(), split, encoded, device_of(model), (task.name,), task.collate, on_progress)
    rows = itertools.groupby(zip(encoded, scores, strict=True), lambda pair: pair[0].row)
    return [[of_sequence for _, of_sequence in row] for _, row in rows]


def decode(task: Task, scores: Scores, encoded: Sequence[Encoded], rows: Sequence[Row]) -> list[Any]:
    """A prediction for each row, from the scores of its sequences."""
    sequences = [list(group) for _, group in itertools.groupby(encoded, lambda sequence: sequence.row)]
    return [task.decode(*arguments) for arguments in zip(scores, sequences, rows, strict=True)]


def predict(
    model: Model,
    task: Task,
    encoded: Sequence[Encoded],
    rows: Sequence[Row],
    on_progress: OnProgress = no_progress,
    run: RunForward = run_here,
) -> list[Any]:
    """A prediction for each row, of what `task.encode` made of the rows."""
    return complete(ask_predictions(model, task, encoded, rows, on_progress), run)


def ask_predictions(
    model: Model, task: Task, encoded: Sequence[Encoded], rows: Sequence[Row], on_progress: OnProgress
) -> Question[list[Any]]:
    """As `predict`."""
    scores = yield from ask_scores(model, task, encoded, on_progress)
    return decode(task, scores, encoded, rows)


def predict_in_chunks(
    model: Model,
    task: Task,
    encoded: Sequence[Encoded],
    rows: Sequence[Row],
    on_progress: OnProgress = no_progress,
    run: RunForward = run_here,
) -> Iterator[tuple[Sequence[Row], list[Any]]]:
    """As `predict`, some rows at a time with their predictions, so that not all scores are in memory.

    Of so many rows and labels that their scores were more than `MAX_KEPT_SCORES`, predictions are condensed.
    """
    labels = max(1, len(task.labels))
    condense = len(rows) * labels > MAX_KEPT_SCORES
    size = min(CHUNK_ROWS, max(MIN_CHUNK_ROWS, MAX_CHUNK_SCORES // labels))
    first = np.searchsorted([sequence.row for sequence in encoded], np.arange(0, len(rows), size))
    ends = [*first[1:].tolist(), len(encoded)]
    for start, begin, end in zip(range(0, len(rows), size), first.tolist(), ends, strict=True):
        chunk = rows[start : start + size]
        found = predict(model, task, encoded[begin:end], chunk, _after(begin, on_progress), run)
        yield chunk, [task.condensed(prediction) for prediction in found] if condense else found


def _after(done: int, on_progress: OnProgress) -> OnProgress:
    """Progress that begins behind what is done."""
    return lambda more: on_progress(done + more)
