"""`torchrun` whose processes are forked from one that has imported everything: agents, rendezvous, environment and
restarts are torch's own, and a start, of which a run has three, costs nothing instead of seven seconds of a slow
processor. `test_distributed.py` has a run by the command itself."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.distributed import run
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

forking = multiprocessing.get_context("forkserver")
forking.set_forkserver_preload(
    ["tests.train.launching", "bothways.train.pretrain", "bothways.train.finetune", "torch._dynamo"]
)
SECONDS = 600  # that a run may take: what processes never agree on ends at last


class Agent:
    """A `torchrun` of these arguments, started; used as a `subprocess.Popen` that has one pipe for all that is said.

    environment: what is set besides this process's own.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._said = tempfile.NamedTemporaryFile()  # noqa: SIM115 - for as long as the agent
        everything = {**os.environ, **(environment or {})}
        self._process = forking.Process(target=_carry_out, args=(list(arguments), everything, self._said.name))
        self._process.start()

    @property
    def returncode(self) -> int:
        """As a Popen's: below 0 the signal that killed it."""
        assert self._process.exitcode is not None
        return self._process.exitcode

    def wait(self, timeout: float = SECONDS) -> int:
        """The exit code, once it has ended; what runs longer is killed."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
            raise TimeoutError(f"torchrun has run for {timeout} seconds and said: {self._text()}")
        return self.returncode

    def communicate(self, timeout: float = SECONDS) -> tuple[str, None]:
        """What it and its processes said, once it has ended."""
        self.wait(timeout)
        return self._text(), None

    def _text(self) -> str:
        return Path(self._said.name).read_text(encoding="utf-8")


def torchrun(*command: object, processes: int = 2, restarts: int = 0) -> tuple[int, str]:
    """The exit code of a module run with its arguments in some processes of this machine, and what was said."""
    launcher = ["--standalone", f"--nproc-per-node={processes}", f"--max-restarts={restarts}"]
    agent = Agent([*launcher, "-m", *map(str, command)], {"OMP_NUM_THREADS": "1"})
    said, _ = agent.communicate()
    return agent.returncode, said


def _carry_out(arguments: list[str], environment: dict[str, str], said: str) -> None:
    """What `torch.distributed.run` does, in a process of its own."""
    with open(said, "ab", buffering=0) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.clear()
    os.environ.update(environment)
    run.elastic_launch = _forked  # instead of a new interpreter for each process
    run.main(arguments)


def _forked(config: LaunchConfig, entrypoint: Any) -> Callable[..., Any]:
    return elastic_launch(replace(config, start_method="fork"), _run_module)


def _run_module(*words: str) -> None:
    """`python -m MODULE ARGUMENTS`. words: of this command, the interpreter left out."""
    module, *arguments = words[words.index("-m") + 1 :]
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as exit:
        if exit.code:
            raise
