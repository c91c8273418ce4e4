"""A real Ray cluster of small nodes on this machine: what it makes is what one machine makes, a node lost or not."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bothways.cluster import connection
from bothways.data import store_parts
from bothways.errors import UserError
from bothways.inference import bulk
from bothways.parts import Parts
from bothways.text.extents import ExtentSize
from tests.data.test_prepare import contents, write_corpus
from tests.helpers import WORDS, Run, tiny_tokenizer

STORE = {"object_store_memory": connection.OBJECT_STORE_BYTES}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A driver's node without a core for parts, and two nodes of one."""
    pytest.importorskip("ray", reason="Ray is not installed")
    ray = connection.import_ray("ray")
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **STORE})
    for _ in range(2):
        found.add_node(num_cpus=1, **STORE)
    ray.init(address=found.address, logging_level="ERROR", log_to_driver=False)
    yield found
    ray.shutdown()
    found.shutdown()


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


@pytest.mark.ray
def test_an_address_that_is_not_rays_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(connection.import_ray("ray"), "is_initialized", lambda: False)
    monkeypatch.setattr(connection.import_ray("ray"), "shutdown", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with (
            pytest.raises(UserError, match=f"on='ray://127.0.0.1:{port}': what answers there is no Ray"),
            connection.connected(f"ray://127.0.0.1:{port}"),
        ):
            pass
    with (
        pytest.raises(UserError, match=f"nothing answers at 127.0.0.1:{port}: Connection refused"),
        connection.connected(f"ray://127.0.0.1:{port}"),
    ):
        pass


def test_addresses_and_versions() -> None:
    assert connection.check_address("ray") == ""
    assert connection.check_address("ray://head:10001") == "head:10001"
    assert connection.check_address("ray://[::1]:10001") == "[::1]:10001"
    for wrong in ("ray://head", "http://head:1", "head:10001", "ray://head:port", "", "ray://head:1/x"):
        with pytest.raises(UserError, match="expected ray or ray://HOST:PORT"):
            connection.check_address(wrong)
    python, bothways = connection.platform.python_version(), connection.__version__
    assert connection.version_fault(python, bothways) == ""
    assert connection.version_fault("2.7.18", bothways) == f"Python 2.7.18, this command {python}"
    assert connection.version_fault(python, "") == f"no Bothways; install {bothways} there"
    assert connection.version_fault(python, "0.0.1") == f"Bothways 0.0.1, this command {bothways}"
