"""Fine-tuning on few rows: which learning rate and how many epochs, on 50, 200 and 1,000 rows, by held-out accuracy.

    python benchmarks/few_rows.py [--model mini] [--data banking sst2 tickets] [--rows 50 200 1000]
                                  [--lr 1e-4 2e-4 4e-4 8e-4] [--epochs 5 10 20 40] [--seeds 0 1 2] [--dry-run]

Rows are drawn label by label in turn, so that each label has its share, and measured on rows that are never test rows:
of BANKING77 and the tickets on some that are held out of their training tables, of SST-2 on the dev set that was carved
from GLUE's training rows. Beside it stands what few rows must beat: TF-IDF of words and pairs of words with a logistic
regression. `--dry-run` lists the runs and trains none.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from common import shared_data, show
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import bothways as bw
from bothways.data.tables import read_rows

Rows = list[dict[str, str]]
INTENTS = 10  # of BANKING77's 77: 50 rows have five of each
HELD_OUT = 500  # rows to measure on, at most; of the tickets, of which there are 390, a third


@dataclass(frozen=True)
class Pool:
    """Rows to draw from, and rows to measure on."""

    train: Rows
    held_out: Rows

    def draw(self, number: int, seed: int) -> Rows:
        """So many rows, label by label in turn."""
        by_label: dict[str, Rows] = defaultdict(list)
        for row in shuffled(self.train, str(seed)):
            by_label[row["label"]].append(row)
        turns = itertools.zip_longest(*(by_label[label] for label in sorted(by_label)))
        return [row for turn in turns for row in turn if row is not None][:number]


def shuffled(rows: Rows, key: str) -> Rows:
    """The rows in an order that is the same everywhere."""
    return sorted(rows, key=lambda row: hashlib.sha256(f"{key} {row['text']}".encode()).hexdigest())


def banking() -> Pool:
    with (shared_data() / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        rows = [{"text": row["text"], "label": row["category"]} for row in csv.DictReader(file)]
    intents = sorted({row["label"] for row in rows})[:INTENTS]
    return _parted([row for row in rows if row["label"] in intents])


def sst2() -> Pool:
    def read(name: str) -> Rows:
        rows = read_rows(str(shared_data() / "sst2" / name), ["sentence", "label"])
        return [{"text": row.text("sentence"), "label": row.text("label")} for row in rows]

    return Pool(read("train.tsv"), shuffled(read("dev.tsv"), "held out")[:HELD_OUT])


def tickets() -> Pool:
    with resources.as_file(resources.files("bothways") / "samples" / "helpdesk" / "tickets-train.jsonl") as path:
        rows = read_rows(str(path), ["text", "label"])
    return _parted([{"text": row.text("text"), "label": row.text("label")} for row in rows])


def _parted(rows: Rows) -> Pool:
    order = shuffled(rows, "held out")
    number = min(HELD_OUT, len(order) // 3)
    return Pool(order[number:], order[:number])


DATA = {"banking": banking, "sst2": sst2, "tickets": tickets}


def accuracy_of_words(train: Rows, held_out: Rows) -> float:
    """TF-IDF with a logistic regression."""
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=500)
    )
    model.fit([row["text"] for row in train], [row["label"] for row in train])
    return float(model.score([row["text"] for row in held_out], [row["label"] for row in held_out]))


def accuracy_of_bert(model: str | None, train: Rows, held_out: Rows, **options: float) -> float:
    """A fine-tuned model at its end, not at its best epoch: with few rows there are none to choose it by."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        bw.finetune("classify", model, train, out=run, sequence_length=128, quiet=True, **options)  # type: ignore[arg-type]
        return float(bw.evaluate(run, held_out, quiet=True)["accuracy"])


def settings(options: argparse.Namespace) -> Iterator[tuple[str, int, float | None, int | None]]:
    """(data, rows, learning rate, epochs), of which the last two are None for the preset's own; a table that has fewer
    rows than are asked for is left out."""
    for data in options.data:
        most = len(DATA[data]().train)
        for rows in (number for number in options.rows if number <= most):
            yield data, rows, None, None
            for lr, epochs in itertools.product(options.lr, options.epochs):
                yield data, rows, lr, epochs


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="by default the shipped encoder")
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--rows", nargs="+", type=int, default=[50, 200, 1000])
    parser.add_argument("--lr", nargs="+", type=float, default=[1e-4, 2e-4, 4e-4, 8e-4])
    parser.add_argument("--epochs", nargs="+", type=int, default=[5, 10, 20, 40])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--dry-run", action="store_true")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parsed(arguments)
    planned = list(settings(options))
    if options.dry_run:
        for data, rows, lr, epochs in planned:
            told = f"lr {lr:g}, {epochs} epochs" if epochs else "the preset"
            print(f"{data}: {rows:,} rows, {told}, {len(options.seeds)} seeds")
        examples = sum(rows * (epochs or 20) * len(options.seeds) for _, rows, _, epochs in planned)
        print(f"{len(planned) * len(options.seeds):,} runs, some {examples:,} examples")
        return
    pools = {name: DATA[name]() for name in options.data}
    table: list[list[object]] = []
    words: dict[tuple[str, int], float] = {}
    for data, rows, lr, epochs in planned:
        pool = pools[data]
        drawn = {seed: pool.draw(rows, seed) for seed in options.seeds}
        if (data, rows) not in words:
            words[data, rows] = statistics.mean(accuracy_of_words(draw, pool.held_out) for draw in drawn.values())
        given = {} if epochs is None or lr is None else {"lr": lr, "epochs": epochs}
        found = [
            accuracy_of_bert(options.model, draw, pool.held_out, seed=seed, **given) for seed, draw in drawn.items()
        ]
        row = [data, rows, lr or "preset", epochs or "preset", statistics.mean(found), min(found), words[data, rows]]
        table.append(row)
        print(*row, flush=True)
    header = ["data", "rows", "lr", "epochs", "accuracy", "least of the seeds", "TF-IDF"]
    show("few_rows", header, table, model=options.model or "the shipped encoder")


if __name__ == "__main__":
    main()
