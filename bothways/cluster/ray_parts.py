"""Parts made on a Ray cluster: actors that open the job once and make a part at a time.

An actor reads and writes files itself; the driver hands out numbers, one part in flight an actor, and gets counts.
Where an actor or its node dies its part is made again by another; a node that joins gets actors. The driver may die as
well: what is complete is in the folder of parts, and the same command goes on with the rest.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bothways.cluster.connection import alive_nodes, connected, on_node, require_same_versions
from bothways.errors import UserError, options_are_flags, options_as_flags

MakePart = Callable[[int], int]  # the number of a part → how many rows or documents it has
OpenJob = Callable[[], MakePart]
WAIT_SECONDS = 1.0  # between two looks at which nodes there are
NODE_SECONDS = 300.0  # in which a node is to come, where none is alive: a machine that starts again takes some minutes
MAX_FAILED_STARTS = 20
MAX_DEATHS = 3  # of actors at the same part: it is the part then, and not the machine


class _Maker:
    """An actor. What a user can mend comes back as a message, as Ray's own errors are pages long."""

    def __init__(self, open_job: OpenJob, as_flags: bool) -> None:
        self._open_job = open_job
        self._make_part: MakePart | None = None
        self._spelling = options_as_flags(as_flags)
        self._spelling.__enter__()  # for the time of the process

    def ready(self) -> None:
        """Answer once the actor runs."""

    def make(self, number: int) -> tuple[int, str]:
        """Make a part: how many rows it has, and what a user has to mend."""
        try:
            if self._make_part is None:
                self._make_part = self._open_job()
            return self._make_part(number), ""
        except UserError as error:
            return 0, str(error) or type(error).__name__


@dataclass
class _Worker:
    """An actor, its node, and the part that it makes; None: it starts."""

    actor: Any
    node: str
    number: int | None = None


def make_on_ray(
    asked: str,
    open_job: OpenJob,
    numbers: Sequence[int],
    per: Literal["core", "device"],
    on_made: Callable[[int, int], None],
    say: Callable[[str], None],
) -> None:
    """Make parts on a cluster, in any order.

    asked: `ray` or `ray://HOST:PORT`. open_job: called once in each actor. per: an actor for each core; or for each
    GPU, and where a node has none, one for all its cores. on_made: called with the number of a part and how many rows
    it has. say: called with what became of the cluster. Raises UserError for what a user can mend, here or on a node.
    """
    with connected(asked) as (ray, _):
        require_same_versions(ray, asked)
        pool = _Pool(ray, open_job, per, say)
        try:
            pool.run(numbers, on_made)
        finally:
            pool.end()


class _Pool:
    def __init__(self, ray: Any, open_job: OpenJob, per: Literal["core", "device"], say: Callable[[str], None]) -> None:
        self._ray, self._per, self._say = ray, per, say
        self._open_job = open_job
        self._actor_class = ray.remote(_Maker)
        self._busy: dict[Any, _Worker] = {}  # by what Ray answers when it is done
        self._idle: list[_Worker] = []
        self._deaths: Counter[int | None] = Counter()
        self._alone_since: float | None = None  # without a live node, by `time.monotonic`

    def run(self, numbers: Sequence[int], on_made: Callable[[int, int], None]) -> None:
        """Make all the parts. Raises UserError where the cluster has no live node for too long."""
        waiting = deque(numbers)
        while waiting or any(worker.number is not None for worker in self._busy.values()):
            self._start_workers(len(waiting))
            while waiting and self._idle:
                self._give(self._idle.pop(), waiting.popleft())
            if not self._busy:  # actors begin on each node that is alive
                self._wait_for_a_node()
                continue
            self._alone_since = None
            for answer in self._ray.wait(list(self._busy), timeout=WAIT_SECONDS)[0]:
                self._take(answer, waiting, on_made)

    def _wait_for_a_node(self) -> None:
        """Wait a moment, and say why the first time. Raises UserError where no node has come for `NODE_SECONDS`."""
        now = time.monotonic()
        if self._alone_since is None:
            self._alone_since = now
            self._say(f"no node of the cluster is alive; waiting for one, {NODE_SECONDS:.0f} s; Ctrl-C stops")
        if now - self._alone_since >= NODE_SECONDS:
            raise UserError(
                f"no node of the cluster has been alive for {NODE_SECONDS:.0f} s; what is complete stays, and the same "
                "command goes on with the rest, here or on a cluster with nodes"
            )
        time.sleep(WAIT_SECONDS)

    def _start_workers(self, wanted: int) -> None:
        """Begin actors where nodes have room, up to one for each part that waits."""
        workers = [*self._busy.values(), *self._idle]
        there = Counter(worker.node for worker in workers)
        room = wanted - sum(worker.number is None for worker in workers)
        for node in alive_nodes(self._ray):
            cores, gpus = int(node["Resources"]["CPU"]), int(node["Resources"].get("GPU", 0))
            most = cores if self._per == "core" else gpus or 1
            needs = {"num_cpus": 1 if self._per == "core" or gpus else cores, "num_gpus": min(1, gpus)}
            if self._per == "core":
                needs["num_gpus"] = 0
            for _ in range(min(most - there[node["NodeID"]], room)):
                options = self._actor_class.options(**needs, scheduling_strategy=on_node(node), max_restarts=0)
                actor = options.remote(self._open_job, options_are_flags())
                self._busy[actor.ready.remote()] = _Worker(actor, node["NodeID"])
                room -= 1

    def _give(self, worker: _Worker, number: int) -> None:
        worker.number = number
        self._busy[worker.actor.make.remote(number)] = worker

    def _take(self, answer: Any, waiting: deque[int], on_made: Callable[[int, int], None]) -> None:
        """Take what an actor answers; the part of one that has died waits again, before the others."""
        worker = self._busy.pop(answer)
        number, worker.number = worker.number, None
        try:
            made = self._ray.get(answer)
        except self._ray.exceptions.RayTaskError:
            raise
        except self._ray.exceptions.RayError as error:
            self._mourn(number, error)
            if number is not None:
                waiting.appendleft(number)
            return
        self._deaths[None] = 0  # workers can start
        if number is not None:
            rows, message = made
            if message:
                raise UserError(message)
            on_made(number, rows)
        self._idle.append(worker)

    def _mourn(self, number: int | None, error: Exception) -> None:
        """Count the death of an actor. number: of the part that it made; None: it has not started."""
        self._deaths[number] += 1
        reason = " ".join(str(error).split())[:200]
        if number is None:
            if self._deaths[None] >= MAX_FAILED_STARTS:
                raise UserError(f"{MAX_FAILED_STARTS} workers in a row did not start, the last so: {reason}") from error
            return
        if self._deaths[number] >= MAX_DEATHS:
            raise UserError(f"part {number}: {MAX_DEATHS} workers have died at it, the last so: {reason}") from error
        self._say(f"a worker has died; its part {number} is made again by another")

    def end(self) -> None:
        """End all actors."""
        for worker in [*self._busy.values(), *self._idle]:
            self._ray.kill(worker.actor)
