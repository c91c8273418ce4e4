"""`bothways serve` against other servers of the same model, one after the other on this machine, under the same load.

    python benchmarks/serve.py [--verbs embed classify] [--texts banking wikipedia] [--clients 1 8 64] [--seconds 10]
    python benchmarks/serve.py --servers bothways fastapi fastapi-onnx infinity litserve \
        --infinity VENV/bin/infinity_emb --litserve VENV/bin/python

Of each: the highest rate of requests of one text at p99 ≤ 100 ms (open loop, latency from when a request was due), the
rate at saturation, and the latency of one request at a time; of ours also the bulk engine's tokens a second and the
Python call's milliseconds, in this process. infinity-emb and LitServe want environments of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import HERE, minilm, shared_data, show
from engines import temporary
from serve_load import closed_loop, highest_rate, request_bytes

import bothways as bw
from bothways.checkpoint.hugging_face import Checkpoint, load_checkpoint, new_model, save_checkpoint
from bothways.data.encoded import join_segments
from bothways.inference.vectors import sequence_vectors
from bothways.model.families import head_builder

LIMIT_MS = 100.0
NUM_TEXTS = 2000
MAX_CHARACTERS = 2000  # of a paragraph, so that every server reads it whole or cuts it at the same place


def banking() -> list[str]:
    """Bank customers' questions: 12 words."""
    with (shared_data() / "banking77" / "test.csv").open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)][:NUM_TEXTS]


def wikipedia() -> list[str]:
    """Paragraphs of an encyclopedia, of every length."""
    import zstandard

    with zstandard.open(shared_data() / "wikipedia-small.jsonl.zst", "rt", encoding="utf-8") as file:
        lines = [line for article in file for line in json.loads(article)["text"].splitlines()]
    paragraphs = [line[:MAX_CHARACTERS] for line in lines if not line.endswith(".") or len(line) > 80]
    return random.Random(0).sample(paragraphs, NUM_TEXTS)


def directory_of(verb: str, folder: Path) -> Path:
    """MiniLM; to classify with a head of 77 labels and random weights, which take the same time."""
    if verb == "embed":
        return minilm()
    base = load_checkpoint(minilm())
    model = new_model(base.config, head_builder("sequence", 77), seed=0)
    model.encoder.load_state_dict(base.model.encoder.state_dict())
    metadata = {"task": "classify", "labels": [f"intent {number}" for number in range(77)]}
    save_checkpoint(Checkpoint(model, base.tokenizer, metadata), folder / "classify")
    return folder / "classify"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(name: str, model: Path, verb: str, options: argparse.Namespace) -> Iterator[str]:
    """A server, and the address that answers."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    peers = str(HERE / "serve_peers.py")
    commands: dict[str, tuple[list[str], str]] = {
        "bothways": (
            [sys.executable, "-m", "bothways.cli", "serve", "--name", f"m={model}", "--port", str(port), "--quiet",
             "--precision", "float32", "--max-requests", "2048"],
            f"{base}/v1/{verb}",
        ),
        "infinity": (
            [options.infinity or "infinity_emb", "v2", "--model-id", str(model), "--port", str(port), "--host",
             "127.0.0.1", "--engine", "torch", "--device", "cpu", "--dtype", "float32", "--no-bettertransformer"],
            f"{base}/embeddings" if verb == "embed" else f"{base}/classify",
        ),
        "litserve": ([options.litserve or sys.executable, peers, name, str(model), str(port), verb], f"{base}/ask"),
    }  # fmt: skip
    plain = ([sys.executable, peers, name, str(model), str(port), verb], f"{base}/ask")
    command, url = commands.get(name, plain)
    environment = {**os.environ, "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "HF_HUB_OFFLINE": "1"}
    started = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        _wait(url, _body(name, ["a text"]), started)
        yield url
    finally:
        started.terminate()
        started.wait(60)


class NotRunningError(Exception):
    """A server that does not answer; the message says why."""


def _wait(url: str, body: bytes, started: subprocess.Popen[bytes]) -> None:
    """Until it answers. Raises NotRunningError where it ends before that, or not within two minutes."""
    for _ in range(600):
        if started.poll() is not None:
            raise NotRunningError(f"ended with code {started.returncode}")
        with contextlib.suppress(OSError):
            request = urllib.request.Request(url, body, {"content-type": "application/json"})
            with urllib.request.urlopen(request, timeout=30):
                return
        time.sleep(0.2)
    raise NotRunningError("no answer in two minutes")


def _body(server: str, texts: Sequence[str]) -> bytes:
    fields = {
        "bothways": {"texts": list(texts), "truncate": True},
        "infinity": {"input": list(texts), "model": "m"},
    }
    return json.dumps(fields.get(server, {"texts": list(texts)})).encode()


def measured(name: str, url: str, texts: Sequence[str], clients: int, seconds: float) -> list[Any]:
    requests = [request_bytes(url, _body(name, [text])) for text in texts]
    closed_loop(url, requests, min(3.0, seconds), clients)  # warm
    saturated = closed_loop(url, requests, seconds, clients)
    rate, outcome = highest_rate(url, requests, clients, seconds, LIMIT_MS, 1.2 * saturated.answered_rate)
    slow = outcome.quantile(0.99) if outcome else float("nan")
    return [name, clients, rate, slow, saturated.answered_rate, saturated.quantile(0.5), saturated.failures]


def in_process(model: Path, verb: str, texts: Sequence[str], seconds: float) -> dict[str, float]:
    """The bulk engine's tokens a second, and the milliseconds of a Python call of one text."""
    loaded = bw.load(model, "cpu", "float32")
    encoded = join_segments(loaded.tokenizer, list(texts), loaded.sequence_length)
    tokens, runs, began = sum(len(text.input_ids) for text in encoded), 0, time.perf_counter()
    while not runs or time.perf_counter() - began < seconds:
        sequence_vectors(loaded, encoded)
        runs += 1
    rate = tokens * runs / (time.perf_counter() - began)
    call, taken = getattr(loaded, verb), []
    for text in texts[:200]:
        start = time.perf_counter()
        call(text)
        taken.append(time.perf_counter() - start)
    mean = tokens / len(texts)
    return {"bulk_tokens_per_second": rate, "call_ms": float(np.median(taken)) * 1e3, "tokens_per_text": mean}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", nargs="+", default=["bothways", "fastapi", "fastapi-onnx"])
    parser.add_argument("--verbs", nargs="+", default=["embed", "classify"], choices=["embed", "classify"])
    parser.add_argument("--texts", nargs="+", default=["banking", "wikipedia"], choices=["banking", "wikipedia"])
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--infinity", metavar="COMMAND")
    parser.add_argument("--litserve", metavar="PYTHON")
    options = parser.parse_args()
    header = ["server", "clients", f"requests/s at p99 ≤ {LIMIT_MS:g} ms", "p99, ms", "requests/s saturated",
              "p50 saturated, ms", "failed"]  # fmt: skip
    with temporary() as folder:
        for verb in options.verbs:
            model = directory_of(verb, Path(folder))
            for kind in options.texts:
                texts = {"banking": banking, "wikipedia": wikipedia}[kind]()
                rows = []
                for name in options.servers:
                    try:
                        with running(name, model, verb, options) as url:
                            rows += [measured(name, url, texts, n, options.seconds) for n in options.clients]
                    except (NotRunningError, FileNotFoundError) as error:
                        print(f"{name} is left out: {error}", file=sys.stderr)
                show(f"serve-{verb}-{kind}", header, rows, **in_process(model, verb, texts, options.seconds))


if __name__ == "__main__":
    main()
