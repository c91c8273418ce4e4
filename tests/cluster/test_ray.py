"""A real Ray cluster of small nodes on this machine: what it makes is what one machine makes, a node lost or not."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from bothways.checkpoint.hugging_face import save_checkpoint
from bothways.cluster import connection, ray_serve
from bothways.data import store_parts
from bothways.errors import UserError
from bothways.inference import bulk
from bothways.parts import Parts
from bothways.predictor import Predictor
from bothways.serve.app import make_app
from bothways.serve.limits import Limits
from bothways.serve.metrics import Metrics
from bothways.serve.models import served_model
from bothways.serve.service import Service
from bothways.text.extents import ExtentSize
from tests.data.test_prepare import contents, write_corpus
from tests.helpers import WORDS, Run, tiny_tokenizer
from tests.serve.conftest import entailment_model, served_predictor

KEY = "0123456789abcdef"
STORE = {"object_store_memory": connection.OBJECT_STORE_BYTES}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def client_port() -> int:
    """Where Ray's client server listens."""
    return free_port()


@pytest.fixture(scope="module")
def cluster(client_port: int) -> Iterator[Any]:
    """A driver's node without a core for parts and with the client server, and two nodes of one."""
    pytest.importorskip("ray", reason="Ray is not installed")
    ray = connection.import_ray("ray")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "ray_client_server_port": client_port, **STORE}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")  # with it the client server's processes die (docs/cluster.md)
        found = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        found.add_node(num_cpus=1, **STORE)
    ray.init(address=found.address, logging_level="ERROR", log_to_driver=False)
    yield found
    ray.shutdown()
    found.shutdown()


def wait_for_nodes(number: int) -> None:
    """Ray takes some seconds to see that a node is lost."""
    import ray

    by = time.monotonic() + 60
    while len(connection.alive_nodes(ray)) != number:
        assert time.monotonic() < by
        threading.Event().wait(0.2)


@pytest.mark.ray
def test_stores_and_vectors_of_a_cluster_are_those_of_one_machine(
    cluster: Any, pretrained: Path, tmp_path: Path, bothways: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second job loses a node while its parts are made, and says so."""
    monkeypatch.setattr(store_parts, "PART_BYTES", 6_000)
    write_corpus(tmp_path / "c.jsonl", documents=200)
    (tmp_path / "vocabulary").mkdir()
    tiny_tokenizer().save(tmp_path / "vocabulary")
    given = ["prepare", tmp_path / "c.jsonl", "--tokenizer", tmp_path / "vocabulary"]
    assert bothways(*given, "--out", tmp_path / "here", "--workers", 1)[0] == 0
    assert bothways(*given, "--out", tmp_path / "there", "--parts", "1/5")[0] == 0  # begun here, and ended there
    made_here = Parts(tmp_path / "there").done()
    code, _, err = bothways(*given, "--out", tmp_path / "there", "--on", "ray")
    assert code == 0, err
    assert made_here
    assert contents(tmp_path / "there") == contents(tmp_path / "here")

    # What a user has to mend on a node is said in the command's words.
    (tmp_path / "bad.jsonl").write_bytes(b'{"text": "the dog"}\n' * 400 + b'{"text": "sl\xc4ps"}\n')
    given = ["prepare", tmp_path / "bad.jsonl", "--tokenizer", tmp_path / "vocabulary", "--out", tmp_path / "bad"]
    code, _, err = bothways(*given, "--on", "ray")
    assert code == 2
    assert "bad.jsonl:401: not UTF-8" in err
    assert "--skip-bad leaves such text out" in err

    monkeypatch.setattr(bulk, "part_size", lambda table_bytes: ExtentSize(1, 40))
    rows = [{"id": n, "text": " ".join(WORDS[(n * k) % len(WORDS)] for k in range(1, 2 + n % 9))} for n in range(1200)]
    rows[5]["text"] = ""
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["embed", pretrained, "--in", tmp_path / "t.jsonl"]
    assert bothways(*given, "--out", tmp_path / "here.jsonl")[0] == 0
    victim = next(iter(cluster.worker_nodes))

    def lose_a_node() -> None:
        parts = Parts(tmp_path / "there.jsonl")
        while len(parts.done()) < 3:
            ended.wait(0.05)
        cluster.remove_node(victim, allow_graceful=False)

    ended = threading.Event()
    thread = threading.Thread(target=lose_a_node)
    thread.start()
    code, said, err = bothways(*given, "--out", tmp_path / "there.jsonl", "--on", "ray")
    thread.join()
    assert code == 0, err
    assert "1,199 rows" in said
    assert (tmp_path / "there.jsonl").read_bytes() == (tmp_path / "here.jsonl").read_bytes()
    assert (tmp_path / "there.jsonl.bad.jsonl").read_text() == (tmp_path / "here.jsonl.bad.jsonl").read_text()
    wait_for_nodes(1)


DYING = """  # a driver that is killed when the third part is made
import os, signal, sys
from bothways.cli import main
from bothways.data import store_parts
from bothways.verbs import parts_arguments, prepare

make = parts_arguments.make_on_cluster

def dying(on, parts, open_job, per, on_made):
    make(on, parts, open_job, per, lambda *made: len(parts.done()) < 3 or os.kill(os.getpid(), signal.SIGKILL))

store_parts.PART_BYTES = 6_000
prepare.make_on_cluster = dying
main(sys.argv[1:])
"""


def outside(cluster: Any, *command: object) -> subprocess.CompletedProcess[str]:
    """A Python process, which is not connected to the cluster as this one is, and would join it."""
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    words = [sys.executable, *map(str, command)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.ray
def test_a_driver_that_is_killed_leaves_what_is_complete(cluster: Any, tmp_path: Path, bothways: Run) -> None:
    write_corpus(tmp_path / "c.jsonl", documents=200)
    (tmp_path / "vocabulary").mkdir()
    tiny_tokenizer().save(tmp_path / "vocabulary")
    given = ["prepare", tmp_path / "c.jsonl", "--tokenizer", tmp_path / "vocabulary"]
    assert bothways(*given, "--out", tmp_path / "here", "--workers", 1)[0] == 0
    killed = outside(cluster, "-c", DYING, *given, "--out", tmp_path / "there", "--on", "ray")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    parts = Parts(tmp_path / "there")
    parts.load()
    assert 3 <= len(parts.done()) < parts.count
    code, _, err = bothways(*given, "--out", tmp_path / "there", "--on", "ray")
    assert code == 0, err
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


@pytest.mark.ray
def test_vectors_by_the_client_server_are_those_of_one_machine(
    cluster: Any, client_port: int, pretrained: Path, tmp_path: Path, bothways: Run
) -> None:
    rows = [{"text": " ".join(WORDS[(n * k) % len(WORDS)] for k in range(1, 2 + n % 9))} for n in range(600)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["embed", pretrained, "--in", tmp_path / "t.jsonl"]
    assert bothways(*given, "--out", tmp_path / "here.jsonl")[0] == 0
    address = f"ray://{cluster.address.rpartition(':')[0]}:{client_port}"
    done = outside(cluster, "-m", "bothways.cli", *given, "--out", tmp_path / "there.jsonl", "--on", address)
    assert done.returncode == 0, done.stderr
    assert "600 rows" in done.stdout
    assert (tmp_path / "there.jsonl").read_bytes() == (tmp_path / "here.jsonl").read_bytes()


def wait_for(replies: list[Any], number: int) -> None:
    pause = threading.Event()
    while len(replies) < number:
        pause.wait(0.02)


def open_service_of(predictor: Predictor) -> Service:
    service = Service(Limits(), Metrics())
    service.open({"m": served_model("m", predictor)})
    return service


def ask(address: str, body: dict[str, Any], path: str = "/v1/classify") -> tuple[int, Any, Any]:
    """Status, content and headers of the reply."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    request = urllib.request.Request(address + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.load(reply), reply.headers
    except urllib.error.HTTPError as error:
        return error.code, json.load(error), error.headers


@contextlib.contextmanager
def asked_all_the_while(address: str, body: dict[str, Any]) -> Iterator[list[tuple[int, Any, Any]]]:
    """Within the block some clients ask one after the other; what they were answered is complete behind it."""
    replies: list[tuple[int, Any, Any]] = []
    ended = threading.Event()

    def client() -> None:
        while not ended.wait(0.1):
            replies.append(ask(address, body))

    clients = [threading.Thread(target=client) for _ in range(2)]
    for thread in clients:
        thread.start()
    yield replies
    ended.set()
    for thread in clients:
        thread.join()


@pytest.mark.ray
def test_replicas_answer_as_one_process_is_lost_or_replaced(
    cluster: Any, tmp_path: Path, bothways: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two replicas answer bit for bit what one process does; where one is killed, all is answered or told when to ask
    again; where other models take their place, all is answered."""
    serve = pytest.importorskip("ray.serve", reason="Ray Serve is not installed")
    import ray

    for _ in range(len(connection.alive_nodes(ray)), 2):  # one is lost in another test
        cluster.add_node(num_cpus=1, **STORE)
    monkeypatch.setenv("BOTHWAYS_API_KEYS", f"test:{KEY}")
    predictor = served_predictor("classify")
    save_checkpoint(predictor.checkpoint, tmp_path / "m")
    save_checkpoint(entailment_model().checkpoint, tmp_path / "n")
    port = free_port()
    given = ["serve", "--on", "ray", "--replicas", 2, "--port", port, "--device", "cpu", "--precision", "float32"]
    code, said, err = bothways(*given, "--name", f"m={tmp_path / 'm'}")
    try:
        assert code == 0, err
        address = f"http://127.0.0.1:{port}"
        assert said == f"page: {address}/\n"
        texts = [" ".join(WORDS[(n * k) % len(WORDS)] for k in range(1, 2 + n % 9)) for n in range(20)]
        with TestClient(make_app(open_service_of(predictor))) as here:  # type: ignore[arg-type]
            for text in texts:
                status, content, _ = ask(address, {"texts": text})
                assert status == 200
                assert content == here.post("/v1/classify", json={"texts": text}).json()
        status, content, _ = ask(address, {"texts": text}, "/v1/generate")
        assert (status, content["error"]["type"]) == (422, "invalid")

        with asked_all_the_while(address, {"texts": texts[0]}) as replies:
            code, _, err = bothways(*given, "--name", f"m={tmp_path / 'n'}")
            assert code == 0, err
        assert {status for status, _, _ in replies} == {200}
        before, *_, after = [content["result"]["label"] for _, content, _ in replies]
        assert before != after

        code, _, err = bothways(*given, "--name", f"m={tmp_path / 'n'}", "--replicas", 3)
        assert code == 2
        assert "--replicas 3: the cluster has 2 cores" in err

        with asked_all_the_while(address, {"texts": texts}) as replies:
            wait_for(replies, 10)
            actors = ray.util.list_named_actors(all_namespaces=True)
            victim = next(a for a in actors if a["name"].startswith("SERVE_REPLICA::"))
            ray.kill(ray.get_actor(victim["name"], namespace=victim["namespace"]))
            wait_for(replies, len(replies) + 20)
        assert {status for status, _, _ in replies} <= {200, 503}
        for status, content, headers in replies:
            assert status == 200 or (headers["retry-after"] and content["error"]["type"] == "stopped")
        assert bothways("serve", "--on", "ray", "--replicas", 0)[0] == 0
        assert "nothing is served there" in bothways("serve", "--on", "ray", "--replicas", 0)[2]
    finally:
        serve.shutdown()


def test_counts_of_replicas() -> None:
    read = ray_serve.ReplicaCount.read
    assert (read("3"), read("1-4")) == (ray_serve.ReplicaCount(3, 3), ray_serve.ReplicaCount(1, 4))
    for wrong in ("0", "4-1", "0-2", "-1", "many", "1-", "", "1-2-3"):
        with pytest.raises(UserError, match="expected a number, or MIN-MAX"):
            read(wrong)


def test_replicas_follow_what_waits() -> None:
    """Two batches a replica; none is taken away while all have something to do."""

    def wanted(waiting: dict[str, float], now: int, asked: int) -> float:
        context = SimpleNamespace(
            aggregated_metrics={ray_serve.WAITING: waiting},
            current_num_replicas=now,
            total_num_requests=asked,
            capacity_adjusted_min_replicas=1,
            capacity_adjusted_max_replicas=4,
        )
        return ray_serve.by_waiting_batches(context)[0]

    assert wanted({"a": 5.0}, now=1, asked=50) == 3
    assert wanted({"a": 50.0, "b": 9.0}, now=2, asked=200) == 4
    assert wanted({"a": 0.0, "b": 0.0, "c": 0.0}, now=3, asked=9) == 3
    assert wanted({"a": 0.0, "b": 0.0, "c": 0.0}, now=3, asked=1) == 1
    assert wanted({}, now=1, asked=0) == 1
