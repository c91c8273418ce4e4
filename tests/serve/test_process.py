"""The process: what it says, what abuse does to it, how it ends under load; and what is wrong at its start."""

from __future__ import annotations

import asyncio
import json
import shlex
import socket
import threading
from pathlib import Path

import httpx2

from bothways.checkpoint.hugging_face import save_checkpoint
from tests.helpers import Run
from tests.serve.abuse import hostile, ordinary
from tests.serve.conftest import served_predictor
from tests.serve.serving import KINDS, TEXT, Server, expected_of, started

THREADS = 8


def test_it_says_what_it_serves_stays_right_under_abuse_and_drains_under_load(tmp_path: Path) -> None:
    with started(tmp_path, "--max-requests", "64") as server:
        command = shlex.split(server.example)
        assert command[:2] == ["curl", f"{server.address}/v1/classify"]
        reply = httpx2.post(command[1], content=command[-1], headers={"content-type": "application/json"})
        assert reply.status_code == 200, reply.text
        assert "<title>Bothways</title>" in httpx2.get(server.address).text
        assert [model["id"] for model in httpx2.get(f"{server.address}/v1/models").json()["data"]] == list(KINDS)

        check = expected_of()
        stage = asyncio.run(hostile(server.port, 300, seed=1))
        assert stage.wrong == []
        assert len(stage.statuses) > 3
        stage = asyncio.run(ordinary(server.port, 300, check))
        assert stage.wrong == []
        assert stage.statuses == {"200": 300}
        drains(server)
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert "all that was accepted is answered" in " ".join(log.split())
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert len(lines) > 500
    assert not any(TEXT in json.dumps(line) for line in lines)


def drains(server: Server) -> None:
    """SIGTERM while eight clients ask: each accepted request is answered as it should be, and the exit code is 0."""
    answered: list[bool] = []
    refused: list[str] = []
    lost: list[Exception] = []
    enough = threading.Event()
    check = expected_of()

    def ask() -> None:
        with httpx2.Client(timeout=30) as client:
            while True:
                try:
                    reply = client.post(f"{server.address}/v1/classify", json={"model": "classify", "texts": TEXT})
                except httpx2.ConnectError:
                    return  # it listens no more
                except httpx2.TransportError as error:
                    lost.append(error)  # an idle connection that was closed while this was sent
                    continue
                if reply.status_code == 503:
                    refused.append(reply.json()["error"]["type"])
                    continue
                answered.append(check("classify", reply.json()["result"]))
                if len(answered) >= 40:
                    enough.set()

    threads = [threading.Thread(target=ask) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    assert enough.wait(60)
    assert server.stop() == 0
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert all(answered)
    assert set(refused) <= {"draining"}
    assert len(lost) <= THREADS  # one for each connection at most, which held no accepted request


def test_what_is_wrong_at_the_start_is_one_line_and_exit_2(tmp_path: Path, bothways: Run) -> None:
    model = tmp_path / "tag"
    save_checkpoint(served_predictor("tag").checkpoint, model)

    def refused(*options: object) -> str:
        code, out, errors = bothways("serve", *options)
        assert (code, out, "Traceback" in errors) == (2, "", False)
        return " ".join(errors.split())

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"--port {port}: in use on 127.0.0.1" in refused(model, "--port", port)
    assert "config.json" in refused(tmp_path, "--port", 0)
    assert "two models are called 'tag'" in refused(model, "--name", "tag=elsewhere")
    keys = tmp_path / "keys"
    keys.write_text("anna: " + "k" * 20)
    keys.chmod(0o640)
    assert "can be read by its group; chmod 600" in refused(model, "--api-keys", keys)
    assert "no model" in refused()
    assert "--max-characters 3000000" in refused(model, "--max-characters", 3_000_000)
