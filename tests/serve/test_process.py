"""The process: what it says, what abuse does to it, how it ends under load; and what is wrong at its start."""

from __future__ import annotations

import asyncio
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from bothways.checkpoint.hugging_face import save_checkpoint
from tests.helpers import Run
from tests.serve.conftest import served_predictor
from tests.serve.drain import terminated_under_load
from tests.serve.hostile import hostile
from tests.serve.load import mixed, ordinary
from tests.serve.serving import KINDS, TEXT, expected_of, in_thread, started

pytestmark = pytest.mark.slow


def test_it_says_what_it_serves_stays_right_under_abuse_and_drains_under_load(tmp_path: Path) -> None:
    with started(tmp_path, "--max-requests", "64") as server:
        command = shlex.split(server.example)
        assert command[:2] == ["curl", f"{server.address}/v1/classify"]
        reply = httpx2.post(command[1], content=command[-1], headers={"content-type": "application/json"})
        assert reply.status_code == 200, reply.text
        assert "<title>Bothways</title>" in httpx2.get(server.address).text
        assert [model["id"] for model in httpx2.get(f"{server.address}/v1/models").json()["data"]] == list(KINDS)

        check = expected_of()
        stage = in_thread(lambda: asyncio.run(hostile(server.port, 300, seed=1)))
        assert stage.wrong == []
        assert len(stage.statuses) > 3
        stage = in_thread(lambda: asyncio.run(ordinary(server.port, 300, check)))
        assert stage.wrong == []
        assert stage.statuses == {"200": 300}
        stage = in_thread(lambda: asyncio.run(mixed(server.port, 50, seed=2)))
        assert stage.wrong == []
        assert stage.statuses == {"200": 50}
        assert terminated_under_load(server) == []
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert "all that was accepted is answered" in " ".join(log.split())
    assert len(server.log()) > 500
    assert TEXT not in log


def test_it_drains_again_and_again() -> None:
    command = [sys.executable, "-m", "tests.serve.drain", "--times", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2])
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2 terminations under load, 0 wrong" in ended.stdout


def test_what_is_wrong_at_the_start_is_one_line_and_exit_2(tmp_path: Path, bothways: Run) -> None:
    model = tmp_path / "tag"
    save_checkpoint(served_predictor("tag").checkpoint, model)

    def refused(*options: object) -> str:
        code, out, errors = in_thread(lambda: bothways("serve", *options))
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
    assert "--max-characters 3000000" in refused(model, "--max-characters", 3_000_000)
