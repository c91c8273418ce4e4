"""Which small model learns most for its price? Ways to pretrain, each for the same floating-point operations.

    python benchmarks/small_models.py --rows-dir DIR --data ../shared/data                 # every row that DIR lacks
    python benchmarks/small_models.py --rows-dir DIR --data ../shared/data --rows mlm-15 electra

All rows read the same text, in one order, and differ from `mlm-15` in the one thing that their name says. The steps of
a row follow from `--flops` and what a token costs it, as `bothways.train.flops` counts: forward and backward, with the
masked-LM head by the number of masks, ELECTRA with its generator; not the optimizer, so that Muon's orthogonalisation
is free here (its hours are not). Learning rates are our defaults.

DIR keeps the text, the vocabularies, the stores, each row's run and DIR/rows/NAME.json: rows add up over calls and
machines, and the table is of all that are there. The same DIR wants the same settings (DIR/settings.json).

Columns: masked-LM loss and accuracy on held-out documents of the same text, 15 % of the tokens masked for all (where
the vocabulary is the same; `bert` reads pairs); masked words, Zorro and BLiMP as in quality.py; SST-2, MRPC and STS-B
as there, on `--train-rows`. ELECTRA's discriminator has no words to say: nothing but the fine-tuned.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import mean
from typing import Any

from common import machine, markdown, run_script
from fine_tuned import SETS, fine_tune, some
from held_out import training_texts
from quality_results import NOTHING, describe
from zero_shot import MEASURES, say

import bothways as bw
from bothways.data.store import TokenStore
from bothways.errors import UserError
from bothways.files import read_json, write_json
from bothways.predictor import Predictor
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.speed import measure_speed

# No tales: a genre that no row has read. Parts 1 to 3 of the older Wikipedia would add nothing but more of the same.
TEXT = [
    "text-english/novels-eltec-en.jsonl.zst",
    "text-english/wikinews-en.jsonl.zst",
    "text-english/dialogues-sgd.jsonl.zst",
    "text-english/wikipedia-en-2018.jsonl.zst",
    "wikipedia/part-0.jsonl.zst",
]
VALIDATION = 0.01  # of the documents, on which the masked-LM loss is measured
FINE_TUNED = ("sst2", "mrpc", "stsb")


@dataclass(frozen=True)
class Way:
    """A way to pretrain. options: of `bothways pretrain`. vocabulary: pieces; None: those of the other rows."""

    options: dict[str, Any]
    vocabulary: int | None = None


MLM: dict[str, Any] = {"objective": "mlm"}
WAYS = {
    "bert": Way({"objective": "bert"}),
    "mlm-15": Way(MLM),
    "mlm-30": Way({**MLM, "mask_rate": 0.3}),
    "mlm-40": Way({**MLM, "mask_rate": 0.4}),
    "falling": Way({**MLM, "mask_rate": 0.3, "mask_rate_end": 0.15}),
    "whole-words": Way({**MLM, "whole_word_masking": True}),
    "electra": Way({"objective": "electra"}),
    "modernbert": Way({**MLM, "family": "modernbert"}),
    "muon": Way({**MLM, "optimizer": "muon"}),
    "vocabulary-16k": Way(MLM, vocabulary=16384),
}


@dataclass(frozen=True)
class Settings:
    """What all rows of a table share. flops: of pretraining, a row. megabytes: of text. pairs: of a paradigm."""

    flops: float = 4e14
    size: str = "mini"
    megabytes: float = 100
    vocabulary: int = 8192
    tokens_per_step: int = 8192
    train_rows: int = 2000
    pairs: int = 200
    seeds: list[int] = field(default_factory=lambda: [0])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows-dir", type=Path, required=True, metavar="DIR")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the folder of data sets")
    parser.add_argument("--rows", nargs="*", choices=WAYS, default=list(WAYS), help="none: only the table")
    parser.add_argument("--device", default="auto")
    defaults = Settings()
    for of in fields(Settings):
        default = getattr(defaults, of.name)
        many: dict[str, Any] = {"nargs": "+", "type": int} if isinstance(default, list) else {"type": type(default)}
        parser.add_argument(f"--{of.name.replace('_', '-')}", default=default, help=f"default: {default}", **many)
    asked = parser.parse_args(arguments)
    settings = Settings(**{of.name: getattr(asked, of.name) for of in fields(Settings)})
    keep_settings(asked.rows_dir, settings)
    for name in asked.rows:
        if (asked.rows_dir / "rows" / f"{name}.json").exists():
            say(f"{name}: there already")
            continue
        write_row(name, asked.rows_dir, asked.data, settings, asked.device)
    print(table(asked.rows_dir, settings))
    return 0


def keep_settings(folder: Path, settings: Settings) -> None:
    """Write them down. Raises UserError where rows of others are in the folder."""
    path = folder / "settings.json"
    before = read_json(path) if path.exists() else asdict(settings)
    for name, value in asdict(settings).items():
        if before.get(name) != value:
            raise UserError(f"{folder} has rows of {name} {before.get(name)}, asked for {value}; take another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(settings))


def write_row(name: str, folder: Path, data: Path, settings: Settings, device: str) -> None:
    """Pretrain a row, measure it, and write its JSON."""
    way, run = WAYS[name], folder / "runs" / name
    store = store_of(way.vocabulary or settings.vocabulary, folder, data, settings)
    options = PretrainOptions(
        size=settings.size, tokens_per_step=settings.tokens_per_step, device=device, **way.options
    )
    cost = flops_per_token(store, options)
    steps = max(1, round(settings.flops / (cost * settings.tokens_per_step)))
    say(f"{name}: {cost / 1e6:.1f} MFLOPs a token, {steps:,} steps")
    if bw.pretrain(store, run, options, steps=steps).interrupted is not None:
        raise KeyboardInterrupt  # the same call goes on from there
    figures: dict[str, Any] = {"flops_per_token": cost, "steps": steps}
    model = bw.load(run, device)
    figures |= {**describe(model, run), **knowledge(model, data, settings)}
    figures["flops"] = cost * figures["tokens"]
    if way.vocabulary is None and "masked-LM" in model.model.head.abilities:
        held_out = bw.evaluate(model, store, quiet=True)
        figures |= {loss: held_out[loss] for loss in ("mlm_loss", "mlm_accuracy")}
    for of in FINE_TUNED:
        figures[of] = mean(fine_tuned(of, run, seed, data, settings, device) for seed in settings.seeds)
        say(f"{name}, {of}: {figures[of]:.4f}")
    (folder / "rows").mkdir(exist_ok=True)
    write_json(folder / "rows" / f"{name}.json", {"figures": figures, "options": way.options, "machine": machine()})


def store_of(vocabulary: int, folder: Path, data: Path, settings: Settings) -> TokenStore:
    """The text in pieces of a vocabulary of this size, made where it is not there yet."""
    text = folder / "text.jsonl"
    if not text.exists():
        partial = folder / "text.jsonl.partial"
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(
                json.dumps({"text": text}) + "\n" for text in training_texts(data, TEXT, settings.megabytes)
            )
        partial.replace(text)
    pieces = bw.train_tokenizer(text, folder / f"vocabulary-{vocabulary}", vocab_size=vocabulary)
    return bw.prepare(text, pieces, folder / f"store-{vocabulary}", validation=VALIDATION)


def flops_per_token(store: TokenStore, options: PretrainOptions) -> float:
    """Of forward and backward, of a step in the middle of the run: a mask rate that moves is at its mean there."""
    if options.mask_rate_end is not None:
        average = (options.mask_rate + options.mask_rate_end) / 2
        options = PretrainOptions(**{**asdict(options), "mask_rate": average, "mask_rate_end": None})
    speed = measure_speed(store, options, steps=1)
    return speed.flops_per_second / speed.tokens_per_second


def knowledge(model: Predictor, data: Path, settings: Settings) -> dict[str, float]:
    """What a pretrained model knows of words and grammar; nothing where it has no words to say."""
    if "masked-LM" not in model.model.head.abilities:
        return {}
    words = MEASURES["held-out"](model, data, settings.pairs)
    grammar = {name: MEASURES[name](model, data, settings.pairs)["accuracy"] for name in ("zorro", "blimp")}
    return {"word_accuracy": words["word_accuracy"], "word_loss": words["word_loss"], **grammar}


def fine_tuned(of: str, run: Path, seed: int, data: Path, settings: Settings, device: str) -> float:
    """The deciding figure of a set."""
    train, test = SETS[of].rows(data)
    rows = some(train, settings.train_rows, seed), test
    with tempfile.TemporaryDirectory() as folder:
        return float(fine_tune(SETS[of], run, rows, Path(folder), seed, device)[SETS[of].metric])


# (figure, title, scale, digits)
COLUMNS = [
    ("parameters", "parameters, M", 1e-6, 1),
    ("flops_per_token", "MFLOPs a token", 1e-6, 1),
    ("flops", "TFLOPs spent", 1e-12, 1),
    ("tokens", "tokens, M", 1e-6, 2),
    ("hours", "hours", 1, 2),
    ("mlm_loss", "MLM loss", 1, 3),
    ("mlm_accuracy", "MLM accuracy", 100, 1),
    ("word_accuracy", "masked words", 100, 1),
    ("word_loss", "nats a word", 1, 2),
    ("zorro", "Zorro", 100, 1),
    ("blimp", "BLiMP", 100, 1),
    ("sst2", "SST-2", 100, 1),
    ("mrpc", "MRPC", 100, 1),
    ("stsb", "STS-B", 100, 1),
]


def table(folder: Path, settings: Settings) -> str:
    """The rows that are there, in the order of `WAYS`, with the machines that they were made on."""
    rows, machines = [], {}
    for name in WAYS:
        path = folder / "rows" / f"{name}.json"
        if path.exists():
            row = read_json(path)
            rows.append([name, *_cells(row["figures"]), f"{100 * mean(row['figures'][of] for of in FINE_TUNED):.1f}"])
            machines[row["machine"]] = None
    head = (
        f"{settings.size}, {settings.flops:.1e} FLOPs a row, vocabulary {settings.vocabulary:,}; fine-tuned on "
        f"{settings.train_rows:,} rows, seeds {settings.seeds}; {settings.pairs or 'all'} pairs a paradigm"
    )
    titles = ["", *(title for _, title, _, _ in COLUMNS), "mean of the three"]
    return f"{head}\n\n{markdown(titles, rows)}\n\nmade on {'; '.join(machines) or 'no machine yet'}"


def _cells(figures: dict[str, Any]) -> Sequence[str]:
    return [
        f"{figures[name] * scale:,.{digits}f}" if name in figures else NOTHING for name, _, scale, digits in COLUMNS
    ]


if __name__ == "__main__":
    run_script(main)
