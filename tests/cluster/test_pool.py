"""The pool of actors without Ray: a stub that has its nodes, and makes parts when it is asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bothways.cluster import ray_parts
from bothways.errors import UserError


class StubRay:
    """A cluster whose nodes are those of `looks`, one look after the other; the last ones stay."""

    exceptions = SimpleNamespace(RayError=ConnectionError, RayTaskError=TimeoutError)

    def __init__(self, looks: list[int]) -> None:
        self._looks = looks
        self.killed = 0

    def nodes(self) -> list[dict[str, Any]]:
        number = self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]
        return [{"NodeID": str(node), "Alive": True, "Resources": {"CPU": 1.0}} for node in range(number)]

    def remote(self, actor_class: type) -> Any:
        def start(*arguments: Any) -> Any:
            actor = actor_class(*arguments)
            methods = {name: _remote(getattr(actor, name)) for name in ("ready", "make")}
            return SimpleNamespace(**methods)

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=start))

    def wait(self, answers: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return answers, []

    def get(self, answer: Any) -> Any:
        return answer()

    def kill(self, actor: Any) -> None:
        self.killed += 1


def _remote(method: Any) -> Any:
    return SimpleNamespace(remote=lambda *arguments: lambda: method(*arguments))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_parts, "WAIT_SECONDS", 0.001)
    monkeypatch.setattr(ray_parts, "on_node", lambda node: None)


def run(stub: StubRay) -> tuple[dict[int, int], list[str]]:
    """What was made of three parts, and what was said."""
    made, said = dict[int, int](), list[str]()
    pool = ray_parts._Pool(stub, lambda: lambda number: 10 * number, "core", said.append)
    pool.run([1, 2, 3], made.__setitem__)
    pool.end()
    return made, said


def test_a_cluster_whose_nodes_come_late_is_waited_for_and_that_is_said_once(quick: None) -> None:
    stub = StubRay([0, 0, 0, 2])
    made, said = run(stub)
    assert made == {1: 10, 2: 20, 3: 30}
    assert said == ["no node of the cluster is alive; waiting for one, 300 s; Ctrl-C stops"]
    assert stub.killed == 2
    assert run(StubRay([2])) == (made, [])


def test_a_cluster_without_a_node_ends_the_command(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_parts, "NODE_SECONDS", 0.01)
    with pytest.raises(UserError, match=r"^no node of the cluster has been alive for 0 s; what is complete stays"):
        run(StubRay([0]))
