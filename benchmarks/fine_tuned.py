"""Encoders fine-tuned with the defaults of `bothways finetune` on sets of every kind, and what stands beside them.

The last epoch's model is measured on the set's test rows, once: nothing is chosen by these rows. (The help desk's
questions, some without an answer, need a threshold, which is chosen on a part of the training rows.) Where there is no
public test set, as of SST-2 and RTE, the test rows are GLUE's development set.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import minilm, sts_rows
from quality_results import Results, describe
from zero_shot import say

import bothways as bw
from bothways.checkpoint.hugging_face import Checkpoint, load_checkpoint, new_model, save_checkpoint
from bothways.data.tables import TableFormat, TableOptions, read_rows
from bothways.errors import UserError
from bothways.model.families import head_builder
from bothways.tasks.metrics import classification_figures, correlations
from bothways.train.finetune_options import STANDARD_EPOCHS, FinetuneOptions

Rows = list[dict[str, Any]]
HELPDESK = Path(bw.__file__).parent / "samples" / "helpdesk"
PROBE_STEPS = 6  # by which the speed of training is measured, where minutes are given
FEWEST_ROWS = 64  # however few the minutes


@dataclass(frozen=True)
class TestSet:
    """A set of rows to train and to measure on.

    train, test: files in the folder of data sets. metric: the figure that decides; also: figures to tell with it.
    options: of the task. held_out: the share of the training rows that thresholds are chosen on.
    """

    task: str
    train: str
    test: str
    metric: str
    options: dict[str, Any] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    held_out: float | None = None
    read: Callable[[Path], Rows] | None = None

    def rows(self, data: Path) -> tuple[Rows, Rows]:
        """The rows to train on, and those to measure on."""
        read = self.read or _rows
        return read(data / self.train), read(data / self.test)


def _rows(path: Path, format: TableFormat | None = None) -> Rows:
    return [dict(row.values) for row in read_rows(path, options=TableOptions(format))]


def _mrpc(path: Path) -> Rows:
    return _rows(path, "tsv")


_PAIR = {"text_column": "sentence1", "pair_column": "sentence2"}
_MRPC = {"text_column": "#1 String", "pair_column": "#2 String", "label_column": "Quality"}
_SCORE = {"pair_column": "pair", "label_column": "score", "problem_type": "regression"}
_HELP = str(HELPDESK / "{}-{}").format  # absolute, so that the folder of data sets is of no account

SETS = {
    "sst2": TestSet("classify", "sst2/train.tsv", "sst2/test.tsv", "accuracy", {"text_column": "sentence"}),
    "mrpc": TestSet("classify", "mrpc/train.txt", "mrpc/test.txt", "accuracy", _MRPC, read=_mrpc),
    "stsb": TestSet(
        "classify", "stsbenchmark/sts-train.csv", "stsbenchmark/sts-test.csv", "spearman", _SCORE, read=sts_rows
    ),
    "rte": TestSet("classify", "rte/train.tsv", "rte/dev.tsv", "accuracy", _PAIR),
    "banking77": TestSet(
        "classify", "banking77/train.csv", "banking77/test.csv", "accuracy", {"label_column": "category"}
    ),
    "wnut17": TestSet("tag", "wnut17/train.conll", "wnut17/test.conll", "f1"),
    "ud-ewt": TestSet("tag", "ud-english-ewt/train.conllu", "ud-english-ewt/test.conllu", "accuracy"),
    "squad": TestSet("answer", "squad/train-v1.1.json", "squad/dev-v1.1.json", "f1", also=("exact_match",)),
    "tickets": TestSet("classify", _HELP("tickets", "train.jsonl"), _HELP("tickets", "test.jsonl"), "accuracy"),
    "pairs": TestSet("classify", _HELP("pairs", "train.jsonl"), _HELP("pairs", "test.jsonl"), "spearman", _SCORE),
    "entities": TestSet("tag", _HELP("entities", "train.jsonl"), _HELP("entities", "test.jsonl"), "f1"),
    "questions": TestSet(
        "answer", _HELP("questions", "train.json"), _HELP("questions", "test.json"), "f1", also=("exact_match",),
        held_out=0.15,
    ),
}  # fmt: skip
BESIDE = ("twin", "words", "minilm")
WORDS, MINILM = "bag of words", "MiniLM (packaged)"


@dataclass(frozen=True)
class FineTuning:
    """data: the folder of data sets. train_rows: of a set, at most; minutes: of training a set, in place of it. again:
    also what the results have already."""

    data: Path
    device: str = "auto"
    seeds: tuple[int, ...] = (0,)
    train_rows: int | None = None
    minutes: float | None = None
    again: bool = False

    @property
    def cap(self) -> str | int | None:
        """How the rows are limited, as results keep it."""
        return self.train_rows if self.minutes is None else f"of {self.minutes:g} min"


def fine_tune_all(
    models: Sequence[tuple[str, str]],
    sets: Sequence[str],
    beside: Sequence[str],
    settings: FineTuning,
    results: Results,
) -> int:
    """Fine-tune models, by name and path, and what stands beside them. Returns 1 where something could not be done."""
    contenders: dict[str, tuple[str | Path, bool]] = {}  # by name: the model, and whether with new weights
    for name, path in [*models, *([(MINILM, str(minilm()))] if "minilm" in beside else [])]:
        figures = describe(bw.load(path, settings.device), Path(path))
        results.add(figures, kind="model", model=name)
        contenders[name] = (path, False)
        if "twin" in beside and name != MINILM:
            contenders[f"{name}, new weights"] = (path, True)
            results.add({"parameters": figures["parameters"]}, kind="model", model=f"{name}, new weights")
    failed = 0
    for of in sets:
        train, test = SETS[of].rows(settings.data)
        if "words" in beside and SETS[of].task == "classify":
            failed |= _for_seeds(WORDS, of, train, settings, results, _with_words(of, test))
        for name, (path, new) in contenders.items():
            failed |= _for_seeds(name, of, train, settings, results, _with_model(of, test, path, new, settings))
    return failed


Fit = Callable[[Rows, int], dict[str, Any]]  # (training rows, seed) → figures


def _for_seeds(name: str, of: str, train: Rows, settings: FineTuning, results: Results, fit: Fit) -> int:
    for seed in settings.seeds:
        key = {"kind": "fine-tuned", "model": name, "set": of, "seed": seed, "rows": settings.cap}
        if results.find(**key) and not settings.again:
            say(f"{name}, {of}, seed {seed}: there already")
            continue
        try:
            figures = fit(some(train, settings.train_rows, seed), seed)
        except UserError as error:
            say(f"{name}, {of}, seed {seed}: {error}")
            return 1
        results.add({**figures, "metric": SETS[of].metric, "also": SETS[of].also}, **key)
        say(f"{name}, {of}, seed {seed}: {SETS[of].metric} {figures[SETS[of].metric]:.4f}")
    return 0


def some(rows: Rows, number: int | None, seed: int) -> Rows:
    """So many rows, drawn with the seed, in their order; all where there are no more."""
    if number is None or number >= len(rows):
        return rows
    return [rows[index] for index in sorted(np.random.default_rng(seed).choice(len(rows), number, replace=False))]


def _with_model(of: str, test: Rows, path: str | Path, new: bool, settings: FineTuning) -> Fit:
    """new: with new weights of the seed in place of the model's."""

    def fit(train: Rows, seed: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            start = twin(path, Path(folder) / "twin", seed) if new else path
            if settings.minutes is not None:
                train = some(train, rows_in(settings, SETS[of], start, train, Path(folder)), seed)
            return fine_tune(SETS[of], start, (train, test), Path(folder) / "run", seed, settings.device)

    return fit


def fine_tune(
    of: TestSet, model: str | Path, rows: tuple[Rows, Rows], out: Path, seed: int, device: str
) -> dict[str, Any]:
    """The figures on the test rows of a model that was trained on the others."""
    train, test = rows
    result = bw.finetune(of.task, model, train, of.held_out, out, seed=seed, device=device, quiet=True, **of.options)
    if result.training.interrupted is not None:
        raise KeyboardInterrupt  # a model that is not trained to the end is not measured
    figures = bw.evaluate(out, test, device=device, quiet=True)
    counts = {"train_rows": len(train), "test_rows": len(test), "truncated": result.truncated}
    cost = {"steps": result.training.steps, "seconds": round(result.training.seconds, 1)}
    return {**{name: value for name, value in figures.items() if isinstance(value, float)}, **counts, **cost}


def rows_in(settings: FineTuning, of: TestSet, model: str | Path, train: Rows, folder: Path) -> int:
    """How many rows the minutes are enough for, by the speed of a few steps."""
    assert settings.minutes is not None
    probe = bw.finetune(
        of.task, model, train, None, folder / "probe", steps=PROBE_STEPS, device=settings.device, quiet=True,
        **of.options,
    )  # fmt: skip
    steps = settings.minutes * 60 / (probe.training.seconds / probe.training.steps)
    return max(FEWEST_ROWS, math.floor(steps / STANDARD_EPOCHS[0]) * FinetuneOptions.batch_size)


def twin(model: str | Path, out: Path, seed: int) -> Path:
    """The same model with new weights."""
    checkpoint = load_checkpoint(model)
    save_checkpoint(Checkpoint(new_model(checkpoint.config, head_builder("encoder"), seed), checkpoint.tokenizer), out)
    return out


def _with_words(of: str, test: Rows) -> Fit:
    return lambda train, seed: bag_of_words(SETS[of], train, test)


def bag_of_words(of: TestSet, train: Rows, test: Rows) -> dict[str, Any]:
    """TF-IDF of words and a logistic regression (of scores a ridge regression); of pairs |a - b| and a · b, by word."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge

    text, pair = of.options.get("text_column", "text"), of.options.get("pair_column")
    label = of.options.get("label_column", "label")
    words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+")
    words.fit([row[column] for row in train for column in ((text, pair) if pair else (text,))])

    def features(rows: Rows) -> Any:
        a = words.transform([row[text] for row in rows])
        if pair is None:
            return a
        b = words.transform([row[pair] for row in rows])
        return hstack([abs(a - b), a.multiply(b)]).tocsr()

    counts = {"train_rows": len(train), "test_rows": len(test)}
    if of.metric == "spearman":
        ridge = Ridge().fit(features(train), [row[label] for row in train])
        return {**correlations([row[label] for row in test], ridge.predict(features(test))), **counts}
    gold, labels = [str(row[label]) for row in test], sorted({str(row[label]) for row in train})
    logistic = LogisticRegression(C=10, max_iter=2000).fit(features(train), [str(row[label]) for row in train])
    figures = classification_figures(gold, logistic.predict(features(test)).tolist(), labels)
    return {"accuracy": figures["accuracy"], "macro_f1": figures["macro_f1"], **counts}
