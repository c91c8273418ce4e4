"""Prefetching: the next item is made in a thread of its own while this one is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def prefetch(make: Callable[[_Item], _Made], items: Iterable[_Item]) -> Iterator[_Made]:
    """`map(make, items)`, one item ahead: while what was made of an item is used, `make` is called for the next one.

    All calls of `make` are in one thread, in order; `items` is read by the caller's. At most two results are in memory.
    An error of `make` is raised where its result would have come.
    """
    with ThreadPoolExecutor(1, "bothways-prefetch") as thread:
        coming: Future[_Made] | None = None
        for item in items:
            ready, coming = coming, thread.submit(make, item)
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()
