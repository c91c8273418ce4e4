"""Fine-tuning against `transformers`: the same model, rows, hyperparameters and seeds; quality and seconds.

    python benchmarks/finetune.py quality [--data sst2 squad1 …] [--seeds 0 1 2]     # trains to the end, twice
    python benchmarks/finetune.py speed [--data …] [--steps 30]                       # a few steps each, A B A B

The peer is `transformers.Trainer` with fused AdamW, rows in random order, padded to the longest of the batch. (Grouped
by length it is faster, and another training: see docs/benchmarks.md.) Both train in the same precision with dropout 0.1
and linear decay after a tenth of warm-up, on sequences that are the same token for token; what the peer trained is
measured by the same evaluation as what Bothways trained, out of the directory that the peer saved.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from common import minilm, shared_data, show, sts_rows
from transformers import AutoTokenizer, Trainer, TrainingArguments

import bothways as bw
from bothways.checkpoint.hugging_face import load_checkpoint
from bothways.data.encoded import Encoded
from bothways.data.tables import read_rows
from bothways.precision import TrainingPrecision
from bothways.progress import Progress
from bothways.tasks.base import Task
from bothways.tasks.tag_windows import FIRST_PIECES
from bothways.train.evaluate import evaluate_rows
from bothways.train.finetune import finetune, make_task
from bothways.train.finetune_options import FinetuneOptions

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Data:
    """A data set: rows to train and measure on, the task with its options, and the hyperparameters."""

    task: str
    read: Callable[[Path], tuple[Rows, Rows]]
    metric: str
    options: dict[str, Any] = field(default_factory=dict)
    epochs: int = 1
    limit: int = 128
    batch: int = 32
    lr: float = 5e-5


def _tsv(path: Path, names: list[str] | None = None) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file, names, delimiter="\t", quoting=csv.QUOTE_NONE)


def _some(rows: Rows, number: int) -> Rows:
    chosen = np.random.default_rng(0).choice(len(rows), min(number, len(rows)), replace=False)
    return [rows[index] for index in chosen]


def sst2(folder: Path) -> tuple[Rows, Rows]:
    """5,000 training sentences, and the 872 of the test file."""
    train, test = (
        [{"text": row["sentence"].strip(), "label": row["label"]} for row in _tsv(folder / "sst2" / name)]
        for name in ("train.tsv", "test.tsv")
    )
    return _some(train, 5000), test


def banking77(folder: Path) -> tuple[Rows, Rows]:
    train, test = (
        [
            {"text": row.values["text"], "label": row.values["category"]}
            for row in read_rows(folder / "banking77" / name)
        ]
        for name in ("train.csv", "test.csv")
    )
    return train, test


def mrpc(folder: Path) -> tuple[Rows, Rows]:
    train, test = (
        [
            {"text": row["#1 String"], "pair": row["#2 String"], "label": row["Quality"]}
            for row in _tsv(folder / "mrpc" / name)
        ]
        for name in ("train.txt", "test.txt")
    )
    return train, test


def stsb(folder: Path) -> tuple[Rows, Rows]:
    train, test = (sts_rows(folder / "stsbenchmark" / name) for name in ("sts-train.csv", "sts-dev.csv"))
    return train, test


def codah(folder: Path) -> tuple[Rows, Rows]:
    names = ["type", "text", "1", "2", "3", "4", "label"]
    train, test = (
        [
            {"text": row["text"], "choices": [row[str(n)] for n in range(1, 5)], "label": row["label"]}
            for row in _tsv(folder / "codah" / "fold_0" / name, names)
        ]
        for name in ("train.tsv", "test.tsv")
    )
    return train, test


def _files(*parts: str) -> Callable[[Path], tuple[Rows, Rows]]:
    def read(folder: Path) -> tuple[Rows, Rows]:
        train, test = ([dict(row.values) for row in read_rows(folder / part)] for part in parts)
        return train, test

    return read


def _squad(version: str) -> Callable[[Path], tuple[Rows, Rows]]:
    return _files(f"squad/train-v{version}.json", f"squad/dev-v{version}.json")


DATA = {
    "sst2": Data("classify", sst2, "accuracy"),
    "banking77": Data("classify", banking77, "accuracy", epochs=3, lr=2e-4),
    "mrpc": Data("classify", mrpc, "accuracy", {"pair_column": "pair"}, epochs=3),
    "stsb-regression": Data(
        "classify", stsb, "spearman",
        {"pair_column": "pair", "label_column": "score", "problem_type": "regression"}, epochs=2,
    ),
    "codah": Data("choose", codah, "accuracy", epochs=3, batch=16),
    "wnut17": Data("tag", _files("wnut17/train.conll", "wnut17/test.conll"), "f1", epochs=3, lr=2e-4),
    "ud-ewt": Data("tag", _files("ud-english-ewt/train.conllu", "ud-english-ewt/test.conllu"), "accuracy", lr=2e-4),
    "squad1": Data("answer", _squad("1.1"), "f1", limit=384, lr=2e-4),
    "squad2": Data("answer", _squad("2.0"), "f1", epochs=2, limit=384, lr=2e-4),
}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """seconds: of the training loop. wall: from the pretrained model's directory to the fine-tuned one's, with
    tokenising and saving. memory: the most that the process had resident, MB."""

    quality: float
    seconds: float
    wall: float
    memory: float


def with_bothways(
    name: str, train: Rows, test: Rows, seed: int, steps: int | None, precision: TrainingPrecision
) -> Result:
    data, began = DATA[name], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        quiet = Progress("", shown=False)
        options = FinetuneOptions(
            epochs=data.epochs, steps=steps, batch_size=data.batch, lr=data.lr, sequence_length=data.limit, seed=seed,
            precision=precision,
        )  # fmt: skip
        result = finetune(
            data.task, minilm(), train, None, Path(folder) / "run", options, progress=quiet, **data.options
        )
        wall, memory = time.perf_counter() - began, _memory()
        quality = measure(Path(folder) / "run" / "model", data, train, test) if not steps else float("nan")
    return Result(quality, result.training.seconds, wall, memory)


def measure(model: Path, data: Data, train: Rows, test: Rows) -> float:
    """The quality of a saved model, whoever trained it."""
    task, _ = _task(data, train)
    checkpoint = load_checkpoint(model, task.head, labels=task.labels)
    rows = read_rows(test)
    encoded = task.encode(rows, checkpoint.tokenizer, data.limit)
    return float(evaluate_rows(checkpoint.model, task, rows, encoded, tune=True).metrics[data.metric])


def _task(data: Data, train: Rows) -> tuple[Task, list[Any]]:
    rows = read_rows(train)
    return make_task(data.task, data.options).for_columns(rows[0].values).fitted(rows), rows


def features(data: Data, train: Rows) -> tuple[str, list[dict[str, Any]], tuple[str, ...]]:
    """The class, the features and the labels for the peer."""
    task, rows = _task(data, train)
    tokenizer = bw.load(minilm()).tokenizer
    encoded = task.add_targets(task.encode(rows, tokenizer, data.limit), rows)
    if data.task == "choose":
        groups = [encoded[index : index + 4] for index in range(0, len(encoded), 4)]
        return "BertForMultipleChoice", [_choices(group) for group in groups], ()
    name = {"classify": "SequenceClassification", "tag": "TokenClassification", "answer": "QuestionAnswering"}[
        data.task
    ]
    return f"BertFor{name}", [_feature(data.task, sequence) for sequence in encoded], task.labels


def _feature(task: str, sequence: Encoded) -> dict[str, Any]:
    targets: dict[str, Any] = {"labels": sequence.targets.get("labels")}
    if task == "tag":
        targets["labels"] = np.full(len(sequence.input_ids), -100)
        targets["labels"][sequence.targets[FIRST_PIECES]] = sequence.targets["labels"]
    elif task == "answer":
        targets = {"start_positions": sequence.targets["start"], "end_positions": sequence.targets["end"]}
    return {"input_ids": sequence.input_ids, "token_type_ids": sequence.token_type_ids, **targets}


def _choices(group: list[Encoded]) -> dict[str, Any]:
    sequences = [{"input_ids": choice.input_ids, "token_type_ids": choice.token_type_ids} for choice in group]
    return {"sequences": sequences, "labels": group[0].targets["label"], "input_ids": sequences[0]["input_ids"]}


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Padded to the longest."""
    choices = len(rows[0].get("sequences", ()))
    sequences = [sequence for row in rows for sequence in row["sequences"]] if choices else rows
    longest = max(len(sequence["input_ids"]) for sequence in sequences)

    def padded(name: str, fill: int) -> torch.Tensor:
        ragged = [sequence[name] for sequence in sequences]
        values = [np.pad(ids, (0, longest - len(ids)), constant_values=fill) for ids in ragged]
        tensor = torch.from_numpy(np.stack(values))
        return tensor.unflatten(0, (-1, choices)) if choices else tensor

    lengths = torch.tensor([len(sequence["input_ids"]) for sequence in sequences])
    mask = (torch.arange(longest) < lengths[:, None]).long()
    batch = {
        "input_ids": padded("input_ids", 0),
        "token_type_ids": padded("token_type_ids", 0),
        "attention_mask": mask.unflatten(0, (-1, choices)) if choices else mask,
    }
    for name in ("labels", "start_positions", "end_positions"):
        if name in rows[0]:
            whole = rows[0][name].ndim == 0
            batch[name] = torch.from_numpy(np.stack([row[name] for row in rows])) if whole else padded(name, -100)
    return batch


def with_transformers(
    name: str, train: Rows, test: Rows, seed: int, steps: int | None, precision: TrainingPrecision
) -> Result:
    data, started = DATA[name], time.perf_counter()
    torch.manual_seed(seed)
    kind, rows, labels = features(data, train)
    # with their names, or our loader would take the trained head for another task's
    names = {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {x: n for n, x in enumerate(labels)},
    }
    model = getattr(transformers, kind).from_pretrained(minilm(), **(names if labels else {}))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=data.epochs, max_steps=steps or -1, per_device_train_batch_size=data.batch,
            learning_rate=data.lr, warmup_steps=0.1, weight_decay=0.01, seed=seed, report_to=[], save_strategy="no",
            use_cpu=not torch.cuda.is_available(), bf16=precision == "bfloat16", disable_tqdm=True,
            optim="adamw_torch_fused", logging_strategy="no", remove_unused_columns=False,
        )  # fmt: skip
        trainer = Trainer(model, arguments, collate, rows)
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(minilm()).save_pretrained(folder)
        wall, memory = time.perf_counter() - started, _memory()
        quality = measure(Path(folder), data, train, test) if not steps else float("nan")
    return Result(quality, seconds, wall, memory)


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def alone(run: Callable[..., Result], *arguments: Any) -> Result:
    """In a process of its own, so that its memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run, *arguments).result()


PEERS = {"transformers": with_transformers, "Bothways": with_bothways}


def compare_quality(names: list[str], seeds: list[int], rows: int | None, precision: TrainingPrecision) -> None:
    table = []
    for name in names:
        train, test = DATA[name].read(shared_data())
        train = _some(train, rows) if rows else train
        found: dict[str, list[Result]] = {"transformers": [], "Bothways": []}
        for seed in seeds:  # in turn, so that a drift of the machine's speed meets both
            for peer, run in PEERS.items():
                found[peer].append(alone(run, name, train, test, seed, None, precision))
                print(json.dumps({"data": name, "seed": seed, "peer": peer, **vars(found[peer][-1])}), flush=True)
        for peer, results in found.items():
            quality = [result.quality for result in results]
            spread = f" ± {statistics.pstdev(quality):.4f}" if len(quality) > 1 else ""
            seconds, wall = (
                statistics.median(getattr(result, key) for result in results) for key in ("seconds", "wall")
            )
            ratio = statistics.median(result.seconds for result in found["transformers"]) / seconds
            memory = max(result.memory for result in results)
            table.append(
                [name, len(train), peer, f"{statistics.mean(quality):.4f}{spread}", seconds, ratio, wall, memory]
            )
    header = ["data", "rows", "", "quality", "training s", "ratio", "wall-clock s", "memory, MB"]
    show("finetune-quality", header, table, seeds=seeds, precision=precision)


def compare_speed(names: list[str], steps: int, rounds: int, precision: TrainingPrecision) -> None:
    table = []
    for name in names:
        train, test = DATA[name].read(shared_data())
        train = _some(train, steps * DATA[name].batch)
        found: dict[str, list[Result]] = {"transformers": [], "Bothways": []}
        for seed in range(rounds):
            for peer, run in PEERS.items():
                found[peer].append(alone(run, name, train, test, seed, steps, precision))
        theirs, ours = (statistics.median(result.seconds for result in results) for results in found.values())
        memory = [max(result.memory for result in results) for results in found.values()]
        table.append([name, theirs, ours, theirs / ours, *memory])
        print(table[-1], flush=True)
    header = ["data", "transformers, s", "Bothways, s", "ratio", "transformers, MB", "Bothways, MB"]
    show("finetune-speed", header, table, steps=steps, rounds=rounds, precision=precision)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["quality", "speed"])
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rows", type=int, help="of the training data, drawn at random; by default all")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="of both")
    arguments = parser.parse_args()
    if arguments.what == "quality":
        compare_quality(arguments.data, arguments.seeds, arguments.rows, arguments.precision)
    else:
        compare_speed(arguments.data, arguments.steps, arguments.rounds, arguments.precision)


if __name__ == "__main__":
    main()
