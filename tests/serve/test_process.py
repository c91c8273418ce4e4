"""The process: what it says, what it serves, and how it ends under load; and what is wrong at its start."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from bothways.checkpoint.hugging_face import save_checkpoint
from tests.helpers import Run
from tests.serve.conftest import served_predictor

THREADS = 8


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    for kind in ("classify", "tag"):
        save_checkpoint(served_predictor(kind).checkpoint, folder / kind)
    return folder


@pytest.fixture
def process(models: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "bothways.cli", "serve", str(models / "classify"), "--port", "0"]
    command += ["--name", f"entities={models / 'tag'}", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    yield started
    if started.poll() is None:
        started.kill()
    started.communicate()


def test_it_says_what_it_serves_and_drains_under_load(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    address = process.stdout.readline().removeprefix("page: ").strip().removesuffix("/")
    command = shlex.split(process.stdout.readline().removeprefix("try: "))
    assert command[:2] == ["curl", f"{address}/v1/classify"]
    headers = {"content-type": "application/json"}
    reply = httpx2.post(command[1], content=command[-1], headers=headers)
    assert reply.status_code == 200, reply.text
    assert "<title>Bothways</title>" in httpx2.get(address).text
    assert [model["id"] for model in httpx2.get(f"{address}/v1/models").json()["data"]] == ["classify", "entities"]

    answered, refused, lost = [], [], []
    enough = threading.Event()
    expected = reply.json()["result"]

    def ask() -> None:
        with httpx2.Client(timeout=30) as client:
            while True:
                try:
                    found = client.post(command[1], content=command[-1], headers=headers)
                except httpx2.ConnectError:
                    return  # it listens no more
                except httpx2.TransportError as error:
                    lost.append(error)  # an idle connection that was closed while this was sent
                    continue
                if found.status_code == 503:
                    refused.append(found.json()["error"]["type"])
                    continue
                answered.append(found.json()["result"] == expected)
                if len(answered) >= 40:
                    enough.set()

    threads = [threading.Thread(target=ask) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    assert enough.wait(60)
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert process.wait(60) == 0
    assert all(answered)
    assert set(refused) <= {"draining"}
    assert len(lost) <= THREADS  # one for each connection at most, that held no accepted request
    said = process.stderr.read() if process.stderr else ""
    assert "Traceback" not in said
    assert re.search(r"classify: BERT, reads both ways|serve: classify: BERT", " ".join(said.split()))
    assert "all that was accepted is answered" in " ".join(said.split())


def test_what_is_wrong_at_the_start_is_one_line_and_exit_2(models: Path, tmp_path: Path, bothways: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, errors = bothways("serve", models / "tag", "--port", port)
        assert (code, f"--port {port}: in use on 127.0.0.1" in " ".join(errors.split())) == (2, True)
    code, _, errors = bothways("serve", tmp_path, "--port", 0)
    assert code == 2
    assert "Traceback" not in errors
    assert str(tmp_path) in errors.replace("\n", "")
    code, _, errors = bothways("serve", models / "tag", "--name", "tag=elsewhere")
    assert code == 2
    assert "two models are called 'tag'" in " ".join(errors.split())
    keys = tmp_path / "keys"
    keys.write_text("anna: " + "k" * 20)
    keys.chmod(0o640)
    code, _, errors = bothways("serve", models / "tag", "--api-keys", keys)
    assert code == 2
    assert "can be read by its group; chmod 600" in " ".join(errors.split())
    code, _, errors = bothways("serve")
    assert (code, "no model" in errors) == (2, True)
    code, _, errors = bothways("serve", models / "tag", "--max-characters", 3_000_000)
    assert (code, "--max-characters 3000000" in errors) == (2, True)
