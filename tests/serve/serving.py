"""A server as a process of its own, with some small models."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bothways.checkpoint.hugging_face import save_checkpoint
from bothways.serve.asking import plain
from tests.serve.conftest import served_predictor

KINDS = ("classify", "tag", "similar", "causal")
TEXT = "the red dog runs in the house"


def in_thread(call: Callable[[], Any]) -> Any:
    """What a call gives, in a thread of its own: in this one an event loop may be running, that of the browser."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


@dataclass
class Server:
    """A running `bothways serve`. said: its standard output. example: the command that it says works. folder: of its
    models and its log."""

    folder: Path
    process: subprocess.Popen[str] | Fork
    said: IO[str]
    address: str = ""
    example: str = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def log(self) -> list[dict[str, Any]]:
        """The lines of JSON that it has written."""
        lines = (self.folder / "log").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def stop(self) -> int:
        """Its exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def write_models(folder: Path) -> None:
    """A directory for each model."""
    for kind in KINDS:
        save_checkpoint(served_predictor(kind).checkpoint, folder / kind)


def serve_arguments(folder: Path, *options: str) -> list[str]:
    """Of `bothways serve` with the models of a folder."""
    names = [part for kind in KINDS for part in ("--name", f"{kind}={folder / kind}")]
    return ["serve", *names, "--port", "0", "--device", "cpu", *options]


@contextlib.contextmanager
def started(folder: Path, *options: str) -> Iterator[Server]:
    """A server of the models, which are written to `folder`; killed at the end if it still runs."""
    write_models(folder)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "bothways.cli", *serve_arguments(folder, *options)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, cwd=Path(__file__).parents[2]
        )
    assert process.stdout is not None
    with answering(Server(folder, process, process.stdout)) as server:
        yield server


@contextlib.contextmanager
def answering(server: Server) -> Iterator[Server]:
    """A server that has said where it listens; killed at the end if it still runs."""
    try:
        server.address = server.said.readline().removeprefix("page: ").strip().removesuffix("/")
        assert server.address, (server.folder / "log").read_text(encoding="utf-8")
        server.example = server.said.readline().removeprefix("try: ").strip()
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait(60)
        server.said.close()


class Fork:
    """A child of this process, as `subprocess.Popen` has one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self, seconds: float) -> int:
        until = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("serve", seconds)
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def forked(folder: Path, *options: str) -> Server:
    """A server of the models in a folder, as a fork of this process, which must have no threads."""
    from bothways.cli import main

    reading, writing = os.pipe()
    sys.stdout.flush()
    if (pid := os.fork()) == 0:
        code = 70
        try:
            os.dup2(writing, 1)
            os.dup2(os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
            code = main(serve_arguments(folder, *options)) or 0
        finally:
            os._exit(code)
    os.close(writing)
    return Server(folder, Fork(pid), os.fdopen(reading))


def expected_of(text: str = TEXT) -> Callable[[str, Any], bool]:
    """Whether a verb's result is the Predictor's, bit for bit."""
    known = {
        "classify": plain(served_predictor("classify").classify(text)),
        "tag": plain(served_predictor("tag").tag(text)),
        "embed": served_predictor("similar").embed(text).tolist(),
    }
    return lambda verb, result: bool(result == known[verb])
