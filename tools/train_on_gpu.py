"""Models of our own from a token store on a machine that is rented for minutes: one uninterrupted run each, to the end.

    python tools/train_on_gpu.py STORE --minutes 6 --out OUT [--sizes mini small] [-- options of `bothways pretrain`]

STORE is a folder of `bothways prepare`, or a tar archive of one (`tar cJf store.tar.xz -C store .` takes a quarter of
its bytes). Needs Python 3.11, torch 2.11, numpy, tokenizers, safetensors, pyarrow and rich, and no network. Each size
gets its share of the minutes, `bothways pretrain --minutes` measures the machine and fits the steps; a run that fails
is begun again without torch.compile in the time that is left. OUT gets, for each size, SIZE.tar.gz.0, .1, …, of at most
`--part-mib` each (`cat SIZE.tar.gz.* | tar xz`): the model's directory with weights in float16, metrics.jsonl, run.json
and the run's output; and train.json, which says what happened.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from bothways.checkpoint.hugging_face import load_checkpoint, save_checkpoint
from bothways.files import write_json

REPOSITORY = Path(__file__).resolve().parents[1]
WRAPPING_SECONDS = 15.0  # of a size's share: its model is loaded again, halved and packed
GRACE_SECONDS = 20.0  # from asking a run to stop, which then saves, to ending it
LAST_LINES = 15
# What a run on a large GPU is told where the command line does not say otherwise: products of 32,768 rows.
USUAL = {"--tokens-per-step": "32768", "--micro-batch-tokens": "32768", "--evaluate-every": "0"}


@dataclass
class SizeResult:
    """What became of a size. runs: the exit code and seconds of each attempt. finished: or else it was stopped, and its
    last checkpoint is what came of it."""

    size: str
    minutes: float
    runs: list[dict[str, float | int | str]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    last_lines: list[str] = field(default_factory=list)
    finished: bool = False
    failed: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--minutes", type=float, default=6.0, help="for everything, of which each size has its share")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", nargs="+", default=["mini", "small"])
    parser.add_argument("--part-mib", type=float, default=15.0, help="what a file of OUT may have, at most")
    words = [*sys.argv[1:], "--"]
    cut = words.index("--")  # behind it are options of `bothways pretrain`
    chosen, options = parser.parse_args(words[:cut]), words[cut + 1 : -1]
    deadline = time.monotonic() + 60 * chosen.minutes
    chosen.out.mkdir(parents=True, exist_ok=True)
    results: list[SizeResult] = []
    with tempfile.TemporaryDirectory() as folder:
        store = unpacked_store(chosen.store, Path(folder) / "store")
        for number, size in enumerate(chosen.sizes):
            seconds = (deadline - time.monotonic()) / (len(chosen.sizes) - number)
            result = SizeResult(size, round(seconds / 60, 2))
            results.append(result)
            try:
                train_size(result, store, Path(folder) / size, seconds, options)
                pack_size(result, Path(folder) / size, chosen.out, int(chosen.part_mib * 2**20))
            except Exception as error:  # the other sizes are to be made all the same
                result.failed = f"{type(error).__name__}: {error}"
            write_json(chosen.out / "train.json", {"sizes": [asdict(made) for made in results]})
            print(json.dumps(asdict(result)), flush=True)
    return 1 if any(result.failed for result in results) else 0


def unpacked_store(given: Path, folder: Path) -> Path:
    """The store's folder: the given one, or what its archive holds."""
    if given.is_dir():
        return given
    folder.mkdir()
    with tarfile.open(given) as archive:
        archive.extractall(folder, filter="data")
    (manifest,) = folder.rglob("manifest.json")
    return manifest.parent


def train_size(result: SizeResult, store: Path, run: Path, seconds: float, options: list[str]) -> None:
    """One run, and where it fails another without torch.compile, in so many seconds altogether."""
    deadline = time.monotonic() + seconds - WRAPPING_SECONDS
    usual = [word for name, value in USUAL.items() if name not in options for word in (name, value)]
    for compiled in ("auto", "off"):
        left = deadline - time.monotonic()
        words = ["pretrain", str(store), "--size", result.size, "--minutes", f"{left / 60:.3f}", "--out", str(run)]
        words += [*usual, *options, *(["--compile", "off", "--overwrite"] if compiled == "off" else [])]
        began = time.monotonic()
        code = run_until(words, run.with_suffix(".log"), left + GRACE_SECONDS / 2)
        result.runs.append({"compile": compiled, "exit_code": code, "seconds": round(time.monotonic() - began, 1)})
        result.last_lines = _last_lines(run.with_suffix(".log"))
        result.finished = code == 0
        if result.finished or (run / "checkpoints").exists():
            return
    raise RuntimeError(f"both runs failed: {result.last_lines[-1:]}")


def run_until(words: list[str], log: Path, seconds: float) -> int:
    """The exit code of a command of `bothways`; one that takes longer is asked to stop, and saves where it is."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "bothways.cli", *words], stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        for patience, number in ((seconds, signal.SIGTERM), (GRACE_SECONDS, signal.SIGKILL)):
            try:
                return process.wait(patience)
            except subprocess.TimeoutExpired:
                process.send_signal(number)
        return process.wait()


def pack_size(result: SizeResult, run: Path, out: Path, part_bytes: int) -> None:
    """The run's model in float16 and what tells of the run, as an archive in parts."""
    model = run.parent / f"{run.name}-model"
    save_checkpoint(load_checkpoint(run), model)  # of a run that was stopped, its last checkpoint
    halve(model / "model.safetensors")
    archive = run.parent / f"{result.size}.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(model, f"{result.size}/model")
        for path in (run / "metrics.jsonl", run / "run.json", run.with_suffix(".log")):
            if path.exists():
                tar.add(path, f"{result.size}/{path.name}")
    content = archive.read_bytes()
    for number, start in enumerate(range(0, len(content), part_bytes)):
        path = out / f"{archive.name}.{number}"
        path.write_bytes(content[start : start + part_bytes])
        result.files.append(path.name)


def halve(weights: Path) -> None:
    """Numbers in float16, where all of them are finite there."""
    tensors = load_file(weights)
    halved = {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in tensors.items()}
    if all(bool(tensor.isfinite().all()) for tensor in halved.values()):
        save_file(halved, weights, metadata={"format": "pt"})


def _last_lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-LAST_LINES:]


if __name__ == "__main__":
    sys.exit(main())
