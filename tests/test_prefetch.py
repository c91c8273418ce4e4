"""Prefetching: one item ahead, in order, in one thread."""

from __future__ import annotations

import threading

import pytest

from bothways.prefetch import prefetch


def test_the_next_item_is_made_while_this_one_is_used() -> None:
    begun = {number: threading.Event() for number in range(4)}
    threads: set[int] = set()

    def make(number: int) -> int:
        threads.add(threading.get_ident())
        begun[number].set()
        return number * number

    found = []
    for number, square in enumerate(prefetch(make, range(4))):
        assert begun[min(number + 1, 3)].wait(timeout=60)  # before the next item is asked for
        assert number == 3 or not (number + 2 < 4 and begun[number + 2].is_set())
        found.append(square)
    assert found == [0, 1, 4, 9]
    assert len(threads - {threading.get_ident()}) == 1


def test_an_error_comes_where_its_result_would_have() -> None:
    quotients = prefetch(lambda number: 1 // number, [1, 0, 1])
    assert next(quotients) == 1
    with pytest.raises(ZeroDivisionError):
        next(quotients)
    assert list(prefetch(str, [])) == []
