"""`bothways serve` against other servers of the same model, one after the other on this machine, under the same load.

    python benchmarks/serve.py --minutes 30 --infinity VENV/bin/python --litserve VENV/bin/python
    python benchmarks/serve.py --minutes 2 --servers bothways onnx --verbs embed --texts banking --clients 8

Of each: the highest rate of requests of one text at p99 ≤ 100 ms (open loop, latency from when a request was due), the
rate at saturation, and the latency at saturation, which for one client is that of one request alone; of ours also
tokens a second beside those of the bulk engine, and one request beside the Python call, both in this process and this
run. MiniLM, float32, and ours in int8 against ONNX Runtime in int8. infinity-emb and LitServe want environments of
their own.

A row is appended to `results/serve.jsonl` when it is measured, and tables are made of all rows at the end. --minutes is
shared among the rows; what time leaves out, and a server that does not start, is said.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import HERE, machine, minilm, shared_data, show
from engines import temporary
from serve_load import closed_loop, highest_rate, request_bytes

import bothways as bw
from bothways.checkpoint.hugging_face import Checkpoint, load_checkpoint, new_model, save_checkpoint
from bothways.data.encoded import join_segments
from bothways.inference.engine import score
from bothways.inference.vectors import sequence_vectors
from bothways.model.families import head_builder

LIMIT_MS = 100.0
BULK_TOKENS = 20_000  # about, that the bulk engine is measured on: many batches, some seconds
SERVERS = ("bothways", "fastapi", "onnx", "infinity", "litserve", "bothways-int8", "onnx-int8")
LENGTHS_OF_A_ROW = 10  # of `seconds`, that a row takes about: warm, saturated, and a rate of each step
STARTING = 20.0  # seconds for a server to start and to end, about
LONGEST_START = 300.0  # seconds
MIN_SECONDS, MAX_SECONDS = 1.0, 10.0  # of a rate
ROWS = HERE / "results" / "serve.jsonl"
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

    def script(file: str) -> list[str]:
        return [str(HERE / file), name, str(model), str(port), verb]

    precision = "int8" if name.endswith("int8") else "float32"
    ours = [
        sys.executable, "-m", "bothways.cli", "serve", "--name", f"m={model}", "--port", str(port), "--quiet",
        "--precision", precision, "--max-requests", "2048",
    ]  # fmt: skip
    infinity = [
        options.infinity or "infinity is not given", "-m", "infinity_emb.cli", "v2", "--model-id", str(model), "--port",
        str(port), "--host", "127.0.0.1", "--engine", "torch", "--device", "cpu", "--dtype", "float32",
        "--no-bettertransformer", "--served-model-name", "m",
    ]  # fmt: skip
    commands = {
        "bothways": (ours, f"{base}/v1/{verb}"),
        "infinity": (infinity, f"{base}/embeddings" if verb == "embed" else f"{base}/classify"),
        "litserve": ([options.litserve or "litserve is not given", *script("serve_litserve.py")], f"{base}/ask"),
    }
    plain = ([sys.executable, *script("serve_peers.py")], f"{base}/ask")
    command, url = commands.get(name.removesuffix("-int8"), plain)
    environment = {**os.environ, "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "HF_HUB_OFFLINE": "1"}
    with ROWS.with_name(f"serve-{name}.log").open("w") as log:
        started = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait(url, _body(name, ["a text"]), started)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGTERM)  # LitServe's workers do not end with it
        started.wait(60)


class NotRunningError(Exception):
    """A server that does not answer; the message says why."""


def _wait(url: str, body: bytes, started: subprocess.Popen[bytes]) -> None:
    """Until it answers. Raises NotRunningError where it ends before that, or takes longer than `LONGEST_START`."""
    until = time.monotonic() + LONGEST_START
    while time.monotonic() < until:
        if started.poll() is not None:
            raise NotRunningError(f"ended with code {started.returncode}")
        with contextlib.suppress(OSError):
            request = urllib.request.Request(url, body, {"content-type": "application/json"})
            with urllib.request.urlopen(request, timeout=30):
                return
        time.sleep(0.2)
    raise NotRunningError(f"no answer in {LONGEST_START:g} seconds")


def _body(server: str, texts: Sequence[str]) -> bytes:
    fields = {
        "bothways": {"texts": list(texts), "truncate": True},
        "bothways-int8": {"texts": list(texts), "truncate": True},
        "infinity": {"input": list(texts), "model": "m"},
    }
    return json.dumps(fields.get(server, {"texts": list(texts)})).encode()


def measured(name: str, url: str, texts: Sequence[str], clients: int, seconds: float) -> dict[str, Any]:
    requests = [request_bytes(url, _body(name, [text])) for text in texts]
    closed_loop(url, requests, seconds, clients)  # warm
    saturated = closed_loop(url, requests, seconds, clients)
    start = 1.2 * saturated.answered_rate
    rate, outcome = highest_rate(url, requests, clients, seconds, LIMIT_MS, start) if start else (0.0, None)
    return {
        "server": name,
        "clients": clients,
        "rate_at_p99": rate,
        "p99_ms": outcome.quantile(0.99) if outcome else None,
        "saturated_rate": saturated.answered_rate,
        "saturated_p50_ms": saturated.quantile(0.5),
        "failed": saturated.failures,
        "seconds": seconds,
    }


def in_process(model: Path, verb: str, precision: Any, texts: Sequence[str], seconds: float) -> dict[str, float]:
    """The bulk engine's tokens a second, the milliseconds of a Python call of one text, and tokens of a text."""
    loaded = bw.load(model, "cpu", precision)
    encoded = join_segments(loaded.tokenizer, list(texts), loaded.sequence_length)
    tokens = sum(len(text.input_ids) for text in encoded)
    some = encoded[: max(1, len(encoded) * BULK_TOKENS // max(BULK_TOKENS, tokens))]
    task = None if verb == "embed" else loaded.task("classify")
    runs, began = 0, time.perf_counter()
    while not runs or time.perf_counter() - began < seconds:
        if task is None:
            sequence_vectors(loaded, some)
        else:
            score(loaded.for_prediction, task, some)
        runs += 1
    rate = runs * sum(len(text.input_ids) for text in some) / (time.perf_counter() - began)
    call, taken = getattr(loaded, verb), []
    for text in texts[:200]:
        start = time.perf_counter()
        call(text)
        taken.append(time.perf_counter() - start)
        if sum(taken) > seconds:
            break
    return {
        "bulk_tokens_per_second": rate,
        "call_p50_ms": float(np.median(taken)) * 1e3,
        "tokens_per_text": tokens / len(texts),
    }


class Budget:
    """The minutes, shared among the rows that are still to be measured."""

    def __init__(self, minutes: float, starts: int, rows: int) -> None:
        self._until, self._starts, self._rows = time.monotonic() + 60 * minutes, starts, rows

    def seconds(self) -> float:
        """How long a rate of the next row may be tried; 0 where nothing is left."""
        left = self._until - time.monotonic() - STARTING * self._starts
        return min(MAX_SECONDS, left / max(1, self._rows) / LENGTHS_OF_A_ROW)

    def started(self) -> None:
        self._starts -= 1

    def done(self, rows: int = 1) -> None:
        self._rows -= rows


def write_row(row: dict[str, Any]) -> None:
    ROWS.parent.mkdir(exist_ok=True)
    with ROWS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def measure_server(
    name: str, verb: str, model: Path, texts: dict[str, list[str]], budget: Budget, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """The rows of one server, written as they are made."""
    rows: list[dict[str, Any]] = []
    with running(name, model, verb, options) as url:
        budget.started()
        for kind, of_kind in texts.items():
            for clients in options.clients:
                seconds = budget.seconds()
                budget.done()
                if seconds < MIN_SECONDS:
                    print(f"{name}, {verb}, {kind}, {clients} clients are left out: no time is left", file=sys.stderr)
                    continue
                rows.append({"verb": verb, "texts": kind, **measured(name, url, of_kind, clients, seconds)})
                write_row(rows[-1])
    if name.startswith("bothways"):
        precision = "int8" if name.endswith("int8") else "float32"
        for kind, of_kind in texts.items():
            found = in_process(model, verb, precision, of_kind, max(1.0, budget.seconds()))
            budget.started()
            write_row({"verb": verb, "texts": kind, "server": f"{name}, in process", **found})
            for row in rows:
                if row["texts"] == kind:
                    row["share_of_bulk"] = (
                        row["saturated_rate"] * found["tokens_per_text"] / found["bulk_tokens_per_second"]
                    )
                    if row["clients"] == 1:
                        row["above_call_ms"] = row["saturated_p50_ms"] - found["call_p50_ms"]
    return rows


def show_rows(rows: Sequence[dict[str, Any]]) -> None:
    """A table for each verb and kind of texts."""
    header = [
        "server", "clients", f"requests/s at p99 ≤ {LIMIT_MS:g} ms", "p99, ms", "requests/s saturated",
        "p50 saturated, ms", "failed", "of the bulk engine's tokens/s", "p50 above the Python call, ms",
    ]  # fmt: skip
    names = ("server", "clients", "rate_at_p99", "p99_ms", "saturated_rate", "saturated_p50_ms", "failed",
             "share_of_bulk", "above_call_ms")  # fmt: skip
    for verb, kind in dict.fromkeys((row["verb"], row["texts"]) for row in rows):
        cells = [[row.get(name, "") for name in names] for row in rows if (row["verb"], row["texts"]) == (verb, kind)]
        show(f"serve-{verb}-{kind}", header, sorted(cells, key=lambda row: row[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--servers", nargs="+", default=list(SERVERS), choices=SERVERS)
    parser.add_argument("--verbs", nargs="+", default=["embed", "classify"], choices=["embed", "classify"])
    parser.add_argument("--texts", nargs="+", default=["banking", "wikipedia"], choices=["banking", "wikipedia"])
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--infinity", metavar="PYTHON", help="of an environment with infinity-emb")
    parser.add_argument("--litserve", metavar="PYTHON", help="of one with litserve and sentence-transformers")
    options = parser.parse_args()
    texts = {kind: {"banking": banking, "wikipedia": wikipedia}[kind]() for kind in options.texts}
    servers, of_server = len(options.verbs) * len(options.servers), len(options.texts) * len(options.clients)
    in_process_too = len(options.verbs) * len(options.texts) * sum("bothways" in name for name in options.servers)
    budget = Budget(options.minutes, servers + in_process_too, servers * of_server)
    ROWS.parent.mkdir(exist_ok=True)
    write_row({"machine": machine(), "minutes": options.minutes})
    rows: list[dict[str, Any]] = []
    with temporary() as folder:
        for verb in options.verbs:
            model = directory_of(verb, Path(folder))
            for name in options.servers:
                try:
                    rows += measure_server(name, verb, model, texts, budget, options)
                except (NotRunningError, OSError) as error:
                    budget.started()
                    budget.done(of_server)
                    log = ROWS.with_name(f"serve-{name}.log")
                    print(f"{name}, {verb} is left out: {error}; {log} has more", file=sys.stderr)
    show_rows(rows)


if __name__ == "__main__":
    main()
