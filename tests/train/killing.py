"""Kill real preparation and training processes at random moments and compare what they leave with undisturbed ones.

    python -m tests.train.killing --kills 20

Kills fall where they fall: while a shard is written, in a step, while a checkpoint is written, before the first one.
The same command is given again until it ends by itself. A quarter of the kills meets the preparation.
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

from bothways.train.run import RunDirectory
from tests.data.test_prepare import write_corpus
from tests.helpers import tiny_tokenizer

# `bothways` with small parts, so that a short preparation has many to be killed between.
PREPARE = """
import sys
from bothways.data import documents, store_parts, store_writer
store_writer.SHARD_TOKENS, documents.BATCH_CHARACTERS, store_parts.PART_BYTES = 20_000, 20_000, 60_000
from bothways.cli import main
sys.exit(main(sys.argv[1:]))
"""


def preparation(corpus: Path, vocabulary: Path, out: Path) -> list[str]:
    """A preparation of a few seconds by two workers."""
    options = ["prepare", str(corpus), "--tokenizer", str(vocabulary), "--out", str(out), "--workers", "2"]
    return [sys.executable, "-c", PREPARE, *options]


def store_bytes(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


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


def run_with_kills(command: list[str], sign: Path, kills: int, rng: random.Random, longest: float) -> int:
    """Give the command again and again, killing it up to `longest` seconds after it has written `sign`.

    Returns how many kills met a running process.
    """
    met = 0
    while True:
        before = written(sign)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if met < kills:
            while process.poll() is None and written(sign) == before:
                time.sleep(0.02)
            time.sleep(rng.uniform(0, longest))
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
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder / "c.jsonl", documents=20_000)
        tiny_tokenizer().save(make(folder / "vocabulary"))
        whole, killed = folder / "store", folder / "killed-store"
        subprocess.run(preparation(folder / "c.jsonl", folder / "vocabulary", whole), check=True, capture_output=True)
        again = preparation(folder / "c.jsonl", folder / "vocabulary", killed)
        prepared = run_with_kills(again, folder / "killed-store.parts", arguments.kills // 4, rng, longest=2.5)
        same_store = store_bytes(whole) == store_bytes(killed)

        subprocess.run(command(whole, folder / "whole"), check=True, capture_output=True)
        left = arguments.kills - prepared
        run = command(killed, folder / "killed")
        trained = run_with_kills(run, folder / "killed" / "metrics.jsonl", left, rng, longest=1.2)
        same_run = result(folder / "whole") == result(folder / "killed")
        print(
            json.dumps(
                {
                    "kills of the preparation": prepared,
                    "store identical": same_store,
                    "kills of the training": trained,
                    "run bit-identical": same_run,
                }
            )
        )
        sys.exit(not (same_store and same_run))


def written(path: Path) -> int:
    """When the file was last written, 0 where there is none."""
    return path.stat().st_mtime_ns if path.exists() else 0


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
