"""A server as a process of its own, with three small models."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bothways.checkpoint.hugging_face import save_checkpoint
from bothways.serve.asking import plain
from tests.serve.conftest import served_predictor

KINDS = ("classify", "tag", "similar")
TEXT = "the red dog runs in the house"


def in_thread(call: Callable[[], Any]) -> Any:
    """What a call gives, in a thread of its own: in this one an event loop may be running, that of the browser."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


@dataclass
class Server:
    """A running `bothways serve`. example: the command that it says works. folder: of its models and its log."""

    folder: Path
    process: subprocess.Popen[str]
    address: str
    example: str

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


@contextlib.contextmanager
def started(folder: Path, *options: str) -> Iterator[Server]:
    """A server of the three models, which are written to `folder`; killed at the end if it still runs."""
    names = []
    for kind in KINDS:
        save_checkpoint(served_predictor(kind).checkpoint, folder / kind)
        names += ["--name", f"{kind}={folder / kind}"]
    command = [sys.executable, "-m", "bothways.cli", "serve", *names, "--port", "0", "--device", "cpu", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, cwd=Path(__file__).parents[2]
        )
    assert process.stdout is not None
    try:
        address = process.stdout.readline().removeprefix("page: ").strip().removesuffix("/")
        yield Server(folder, process, address, process.stdout.readline().removeprefix("try: ").strip())
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def expected_of(text: str = TEXT) -> Callable[[str, Any], bool]:
    """Whether a verb's result is the Predictor's, bit for bit."""
    known = {
        "classify": plain(served_predictor("classify").classify(text)),
        "tag": plain(served_predictor("tag").tag(text)),
        "embed": served_predictor("similar").embed(text).tolist(),
    }
    return lambda verb, result: bool(result == known[verb])
