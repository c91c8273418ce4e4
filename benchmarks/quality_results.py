"""What the quality benchmark has found so far, in a JSON that runs add to, and the tables of it."""

from __future__ import annotations

import datetime
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from common import machine, markdown

from bothways.files import read_json, write_json
from bothways.predictor import Predictor

# What tells records apart; of two with the same the later stays.
KEYS = ("kind", "model", "set", "seed", "rows", "pairs")
NOTHING = "–"

# Turc et al. 2019, "Well-read students learn better", as google-research/bert's README has them: GLUE's test server,
# the best of 20 settings of batch size and learning rate. Accuracies of SST-2, MRPC and RTE, Spearman of STS-B, GLUE's
# average over nine tasks; parameters in millions.
PUBLISHED = {
    "BERT-Tiny (Google)": {"parameters": 4.4, "sst2": 83.2, "mrpc": 71.1, "stsb": 73.6, "rte": 57.2, "glue": 64.2},
    "BERT-Mini (Google)": {"parameters": 11.3, "sst2": 85.9, "mrpc": 71.8, "stsb": 73.3, "rte": 57.9, "glue": 65.8},
    "BERT-Small (Google)": {"parameters": 29.1, "sst2": 89.7, "mrpc": 76.2, "stsb": 77.0, "rte": 61.8, "glue": 71.2},
}


class Results:
    """The records of a JSON file, which need not be there yet; each addition is written at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = read_json(path)["records"] if path.exists() else []

    def find(self, **key: Any) -> list[dict[str, Any]]:
        """The records with these values, in the order in which they came."""
        return [record for record in self.records if all(record.get(name) == value for name, value in key.items())]

    def add(self, figures: dict[str, Any], **key: Any) -> None:
        """Add a record, in place of one with the same values of `KEYS`. Raises ValueError for other names."""
        if unknown := set(key) - set(KEYS):
            raise ValueError(f"no key of a record: {', '.join(sorted(unknown))}")
        same = {name: key.get(name) for name in KEYS}
        replaced = self.find(**same)
        self.records = [record for record in self.records if record not in replaced]
        date = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="minutes")
        self.records.append({**key, "figures": figures, "machine": machine(), "date": date})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {"records": self.records})

    def names(self, kind: str, key: str) -> list[Any]:
        """The values that records of a kind have of a key, in the order in which they came."""
        return list(dict.fromkeys(record[key] for record in self.find(kind=kind)))


def describe(model: Predictor, path: Path) -> dict[str, Any]:
    """What a model is and what it cost: parameters of the encoder and, of a run of Bothways, tokens and hours of its
    last pretraining (metrics.jsonl of the run, else what bothways.json says of where it comes from)."""
    parameters = sum(parameter.numel() for parameter in model.model.encoder.parameters())
    made = model.checkpoint.metadata.get("provenance", {})
    known: dict[str, Any] = {"parameters": parameters, "vocabulary": model.tokenizer.vocab_size}
    options = made.get("options", {})
    if "seconds" in made:
        known["hours"] = made["seconds"] / 3600
    if {"steps", "tokens_per_step"} <= set(options):
        known["tokens"] = options["steps"] * options["tokens_per_step"]
    for metrics in (path / "metrics.jsonl", path.parent / "metrics.jsonl"):
        if metrics.exists() and (lines := _training_lines(metrics)):
            return {**known, "tokens": lines[-1]["tokens"], "hours": lines[-1]["seconds"] / 3600}
    return known


def _training_lines(metrics: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return [line for line in lines if "seconds" in line and "tokens" in line]


def zero_shot_tables(results: Results) -> str:
    """What models know before fine-tuning, as Markdown."""
    return _together(zero_shot_table(results), genre_table(results), *paradigm_tables(results))


def tables(results: Results) -> str:
    """Every table that there are records for, as Markdown."""
    return _together(zero_shot_tables(results), fine_tuned_table(results))


def _together(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def _cost(results: Results, name: str) -> list[str]:
    """Parameters in millions, tokens in millions, hours."""
    found = results.find(kind="model", model=name)
    figures = found[-1]["figures"] if found else {}
    scales = {"parameters": (1e-6, 1), "tokens": (1e-6, 1), "hours": (1, 2)}
    return [
        f"{figures[key] * scale:,.{digits}f}" if key in figures else NOTHING for key, (scale, digits) in scales.items()
    ]


COST = ["model", "parameters, M", "tokens seen, M", "hours"]
# (set, figure, title) of the columns
ZERO_SHOT = [
    ("held-out", "word_accuracy", "masked words"),
    ("held-out", "short_accuracy", "of one piece"),
    ("held-out", "short_share", "their share"),
    ("held-out", "word_loss", "nats a word"),
    ("held-out", "accuracy", "masked pieces"),
    ("held-out", "loss", "nats a piece"),
    ("zorro", "accuracy", "Zorro"),
    ("blimp", "accuracy", "BLiMP"),
    ("facts", "first", "facts, first"),
    ("facts", "among_ten", "among ten"),
    ("facts", "facts", "facts asked"),
    ("cloze", "first", "cloze, first"),
    ("cloze", "among_ten", "among ten"),
]


def zero_shot_table(results: Results) -> str:
    """A row for each model; the latest record of each measure."""
    rows = []
    for name in results.names("zero-shot", "model"):
        cells = [_latest(results, name, measure, figure) for measure, figure, _ in ZERO_SHOT]
        rows.append([name, *_cost(results, name), *cells])
    notes = [f"{measure}: {pairs} pairs a paradigm" for measure, pairs in _pairs(results)]
    head = "Before fine-tuning: held-out text is the mean over genres" + "".join(f"; {note}" for note in notes)
    return f"{head}\n\n{markdown([*COST, *(title for *_, title in ZERO_SHOT)], rows)}" if rows else ""


def _pairs(results: Results) -> list[tuple[str, Any]]:
    found = [
        (record["set"], record["pairs"] or "all") for record in results.find(kind="zero-shot") if "pairs" in record
    ]
    return sorted(set(found), key=str)


def _latest(results: Results, model: str, measure: str, figure: str) -> Any:
    found = results.find(kind="zero-shot", model=model, set=measure)
    return found[-1]["figures"][figure] if found else NOTHING


def genre_table(results: Results) -> str:
    """The share of masked words that are right, by genre, and nats a word."""
    found = {record["model"]: record["figures"]["genres"] for record in results.find(kind="zero-shot", set="held-out")}
    if not found:
        return ""
    genres = list(next(iter(found.values())))
    rows = [
        [name, *(f"{of[genre]['word_accuracy']:.3f} / {of[genre]['word_loss']:.2f}" for genre in genres)]
        for name, of in found.items()
    ]
    return f"Masked words right / nats a word, by genre\n\n{markdown(['model', *genres], rows)}"


def paradigm_tables(results: Results) -> list[str]:
    """Minimal pairs by paradigm, a column for each model."""
    made = []
    for measure in ("zorro", "blimp"):
        found = {
            record["model"]: record["figures"]["paradigms"] for record in results.find(kind="zero-shot", set=measure)
        }
        if found:
            names = sorted({name for paradigms in found.values() for name in paradigms})
            rows = [[name, *(paradigms.get(name, NOTHING) for paradigms in found.values())] for name in names]
            made.append(f"{measure} by paradigm\n\n{markdown(['paradigm', *found], rows)}")
    return made


def fine_tuned_table(results: Results) -> str:
    """A row for each model and each number of rows that it was trained on: mean and spread over seeds."""
    sets = results.names("fine-tuned", "set")
    if not sets:
        return ""
    rows = []
    for name in results.names("fine-tuned", "model"):
        caps = dict.fromkeys(record["rows"] for record in results.find(kind="fine-tuned", model=name))
        for cap in caps:
            found = [results.find(kind="fine-tuned", model=name, set=of, rows=cap) for of in sets]
            cells = [_cell(records) for records in found]
            average = f"{statistics.mean(map(_deciding, found)):.1f}" if all(found) else NOTHING
            rows.append([name, *_cost(results, name), cap or "all", *cells, average, NOTHING])
    for name, figures in PUBLISHED.items():
        cells = [f"{figures[of]:.1f}" if of in figures else NOTHING for of in sets]
        rows.append([name, f"{figures['parameters']}", NOTHING, NOTHING, "all", *cells, NOTHING, f"{figures['glue']}"])
    titles = [f"{of} ({results.find(kind='fine-tuned', set=of)[0]['figures']['metric']})" for of in sets]
    head = "Fine-tuned: 100 × the figure, mean ± spread over seeds (n = seeds), in brackets the training rows"
    cited = (
        "Rows of Google are cited from google-research/bert (Turc et al. 2019): GLUE's test server, best of 20 settings"
    )
    return f"{head}\n\n{markdown([*COST, 'rows at most', *titles, 'mean', 'GLUE average'], rows)}\n\n{cited}"


def _cell(records: Sequence[dict[str, Any]]) -> str:
    if not records:
        return NOTHING
    values = [100 * record["figures"][record["figures"]["metric"]] for record in records]
    others = "".join(f" / {_mean_of(records, name):.1f}" for name in records[0]["figures"].get("also", ()))
    spread = f" ± {statistics.stdev(values):.1f} (n = {len(values)})" if len(values) > 1 else ""
    rows = sorted({record["figures"]["train_rows"] for record in records})
    return f"{statistics.mean(values):.1f}{others}{spread} [{' '.join(f'{number:,}' for number in rows)}]"


def _deciding(records: Sequence[dict[str, Any]]) -> float:
    """The mean over seeds of the figure that decides."""
    return _mean_of(records, records[0]["figures"]["metric"])


def _mean_of(records: Iterable[dict[str, Any]], name: str) -> float:
    return statistics.mean(100 * record["figures"][name] for record in records)
