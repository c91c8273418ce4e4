"""A million rows into a file: rows a second, peak memory, and a kill in the middle.

    python benchmarks/bulk.py [--rows 1000000] [--model DIR]

By default with a BERT of two layers and 128 hidden units with random weights: what is measured is the way of the rows,
not the model. The run is killed when half of the rows are done and started again; in the end every row has to be there
once, in order, with the vector that it has alone. Memory is also measured on a tenth of the rows.
"""

from __future__ import annotations

import argparse
import csv
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from common import minilm, shared_data, show
from transformers import BertConfig, BertModel

import bothways as bw

PART = 50_000  # rows written at a time


def write_table(path: Path, rows: int) -> None:
    """Bank customers' questions over and over, with a number and a column that is carried through."""
    with (shared_data() / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        lines = [row["text"] for row in csv.DictReader(file)]
    schema = pa.schema([("id", pa.int64()), ("text", pa.string()), ("source", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, PART):
            numbers = range(start, min(rows, start + PART))
            texts = [f"{lines[n % len(lines)]} {n % 97}" for n in numbers]
            writer.write_table(pa.table([list(numbers), texts, ["bank"] * len(texts)], schema=schema))


def small_model(folder: Path) -> Path:
    config = BertConfig(hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512)
    BertModel(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / name).write_bytes((minilm() / name).read_bytes())
    return folder


def run(model: Path, table: Path, out: Path, kill_at: int | None = None) -> tuple[float, float]:
    """Seconds, and the most memory that was resident, MB; killed when so many rows are done."""
    command = [sys.executable, "-m", "bothways.cli", "embed", str(model), "--in", str(table), "--out", str(out)]
    began, most = time.perf_counter(), 0.0
    process = subprocess.Popen(command)
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            most = max(most, watched.memory_info().rss / 1e6)
        except psutil.NoSuchProcess:
            break
        markers = out.with_name(f"{out.name}.parts").glob("[0-9]*.json")
        done = sum(json.loads(path.read_text())["rows"] for path in markers)
        if kill_at is not None and done >= kill_at:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.2)
    process.wait()
    return time.perf_counter() - began, most


def check(model: Path, table: Path, out: Path) -> None:
    """Every row once, in order; of some the vector they have alone."""
    wanted, found = pq.ParquetFile(table), pq.ParquetFile(out)
    assert found.metadata.num_rows == wanted.metadata.num_rows
    first = 0
    for batch in found.iter_batches(PART, columns=["id"]):
        assert batch["id"].to_pylist() == list(range(first, first + len(batch)))
        first += len(batch)
    some = next(found.iter_batches(64))
    alone = bw.load(model, precision="float32")
    vectors = np.stack([alone.embed(text) for text in some["text"].to_pylist()])
    np.testing.assert_allclose(np.array(some["embedding"].to_pylist()), vectors, atol=1e-5)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = arguments.model or small_model(folder / "model")
        for rows, kill in ((arguments.rows // 10, None), (arguments.rows, arguments.rows // 2)):
            table, out = folder / f"{rows}.parquet", folder / f"{rows}-out.parquet"
            write_table(table, rows)
            seconds, memory = run(model, table, out, kill)
            label = "killed in the middle" if kill else "in one go"
            if kill:
                assert not out.exists()
                more, again = run(model, table, out)
                seconds, memory = seconds + more, max(memory, again)
            check(model, table, out)
            lines.append([f"{rows:,}", label, seconds, rows / seconds, memory])
    show("bulk", ["rows", "", "seconds", "rows/s", "peak memory, MB"], lines)
