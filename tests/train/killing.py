"""Kill real training processes at random moments and compare what they leave with an undisturbed run.

    python -m tests.train.killing --kills 20

Kills fall where they fall: in a step, while a checkpoint is written, before the first one. The same command is given
again until it ends by itself.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bothways.data.prepare import prepare
from bothways.train.run import RunDirectory
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_tokenizer


def command(store: Path, out: Path) -> list[str]:
    """A run of a few seconds with dropout, checkpoints every third step and evaluations in between."""
    options = "--size tiny --steps 60 --tokens-per-step 2000 --sequence-length 32 --dropout 0.1 --checkpoint-every 3"
    rest = "--log-every 4 --evaluate-every 7 --precision float32 --max-position-embeddings 64"
    return [
        sys.executable,
        "-m",
        "bothways.cli",
        "pretrain",
        str(store),
        "--out",
        str(out),
        *options.split(),
        *rest.split(),
    ]


def result(out: Path) -> tuple[bytes, bytes, list[dict[str, object]]]:
    """The model's and the optimizer's bytes, and the metrics without the clock's values."""
    last = RunDirectory(out).checkpoints()[-1]
    clock = ("seconds", "tokens_per_second", "fraction_of_peak")
    metrics = [{k: v for k, v in line.items() if k not in clock} for line in RunDirectory(out).metrics()]
    return (out / "model" / "model.safetensors").read_bytes(), (last / "optimizer.safetensors").read_bytes(), metrics


def run_with_kills(store: Path, out: Path, kills: int, seed: int) -> int:
    """Returns how many kills met a running process."""
    rng, met = random.Random(seed), 0
    while True:
        process = subprocess.Popen(command(store, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if met < kills:
            # mostly after the first checkpoint can have been written, sometimes before
            while process.poll() is None and not (out / "metrics.jsonl").exists():
                time.sleep(0.02)
            time.sleep(rng.uniform(0, 1.2))
            if process.poll() is None:
                process.kill()
                process.wait()
                met += 1
                continue
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        return met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder / "c.jsonl", documents=200)
        store = prepare([str(folder / "c.jsonl")], tiny_tokenizer(), folder / "store").directory
        subprocess.run(command(store, folder / "whole"), check=True, capture_output=True)
        met = run_with_kills(store, folder / "killed", arguments.kills, arguments.seed)
        same = result(folder / "whole") == result(folder / "killed")
        print(json.dumps({"kills": met, "bit-identical": same}))
        sys.exit(not same)


if __name__ == "__main__":
    main()
