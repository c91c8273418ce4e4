"""Command lines carried out one after the other by the processes of one torchrun, which stay together.

    torchrun --nproc-per-node=2 -m tests.train.commands FOLDER

FOLDER has `commands.json`, a list of: the name of a run, the name of the run that it goes on from or null, and the
arguments of `bothways`. What the first process says goes to `NAME.log`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

import torch

from bothways.cli import main
from bothways.train.distributed import World, join_world


def copy_at_step_10(folder: Path, before: str, name: str) -> None:
    """Copy a run of 12 steps as it was at step 10, when it was not finished."""
    shutil.copytree(folder / before, folder / name, ignore=shutil.ignore_patterns("step-00000012", "model"))


def carry_out(folder: Path, world: World) -> None:
    for name, before, arguments in json.loads((folder / "commands.json").read_text()):
        if world.main and before is not None:
            copy_at_step_10(folder, before, name)
        world.wait()
        log = folder / f"{name}.log" if world.main else Path(os.devnull)
        with log.open("w", encoding="utf-8") as file, contextlib.redirect_stderr(file):
            code = main(arguments)
        if code:
            sys.exit(f"{name}: exit code {code}: {log.read_text(encoding='utf-8')}")


if __name__ == "__main__":
    with join_world(torch.device("cpu")) as world:
        carry_out(Path(sys.argv[1]), world)
