"""Tickets of an internet provider sorted into hardware, software and billing: by fine-tuned BERTs, and by what came
before BERT."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console

from bothways.data.tables import Row, read_rows
from bothways.demo.screen import doubt, say_plainly
from bothways.pages.demo import SortedTickets, right_or_wrong
from bothways.predictor import load
from bothways.train.finetune import FinetuneResult, finetune
from bothways.train.finetune_options import FinetuneOptions

NUM_EXAMPLES, NUM_SHOWN = 12, 5  # tickets on the page, and on the screen


def sort_tickets(
    models: Mapping[str, tuple[Path, Path, FinetuneOptions]], console: Console
) -> tuple[FinetuneResult, SortedTickets | None]:
    """Fine-tune each model on the tickets, compare them with the baselines, and show held-out tickets.

    models: by what it is called: where it starts, its run's directory, its options; examples are of the last one.
    Returns the last fine-tuning, which may have been interrupted; the second is None then.
    """
    with helpdesk() as folder:
        train, test = folder / "tickets-train.jsonl", folder / "tickets-test.jsonl"
        results = {}
        for name, (start, out, options) in models.items():
            result = results[name] = finetune("classify", start, train, test, out, options)
            if result.evaluation is None:
                return result, None
        train_rows, test_rows = read_rows(train), read_rows(test)
    compared = [*_baselines(train_rows, test_rows), *([name, _accuracy(results[name])] for name in models)]
    console.print(f"accuracy on {len(test_rows)} held-out tickets:")
    for name, accuracy in compared:
        console.print(f"  {accuracy:6.1%}  {name}")
    best = max(models, key=lambda name: _accuracy(results[name]))
    run = models[best][1]
    evaluation = results[best].evaluation
    assert evaluation is not None
    tickets = SortedTickets(best, run, evaluation, compared, _examples(run, test_rows))
    if tickets.verdict():
        say_plainly(console, tickets.verdict())
    console.print(f"for example, by {best}:")
    for text, predicted, probability, label, verdict in tickets.examples[:NUM_SHOWN]:
        told = verdict if verdict == "right" else f"wrong, is {label}"
        say_plainly(console, f"  {predicted} {probability:.0%} ({told}): {text[:90]}{doubt(probability)}")
    return results[best], tickets


def _accuracy(result: FinetuneResult) -> float:
    assert result.metrics is not None
    return result.metrics["accuracy"]


def _baselines(train: Sequence[Row], test: Sequence[Row]) -> list[list[Any]]:
    """The accuracy of each model that BERT must beat."""
    from bothways.baselines.classify import compare_classifiers  # needs the extra that `run_demo` asks for

    texts, labels = _columns(train)
    return [
        [baseline.name, baseline.accuracy]
        for baseline in compare_classifiers(texts, labels, *_columns(test), sorted(set(labels)))
    ]


def _examples(run: Path, rows: Sequence[Row]) -> list[list[Any]]:
    """Held-out tickets: text, prediction, probability, truth, right or wrong."""
    texts, labels = _columns(rows)
    predictions = load(run).classify(texts)
    shown = itertools.islice(zip(texts, labels, predictions, strict=True), NUM_EXAMPLES)
    return [
        [text, found.label, found.scores[found.label], gold, right_or_wrong(found.label == gold)]
        for text, gold, found in shown
    ]


def _columns(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    return [row.text("text") for row in rows], [row.text("label") for row in rows]


def helpdesk() -> contextlib.AbstractContextManager[Path]:
    """The folder of the help desk's samples."""
    return resources.as_file(resources.files("bothways") / "samples" / "helpdesk")
