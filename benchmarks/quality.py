"""How good are encoders? Before fine-tuning, and fine-tuned on sets of every kind; results add up in a JSON.

    python benchmarks/quality.py zero-shot MODEL… --data ../shared/data --json quality.json
    python benchmarks/quality.py fine-tuned MODEL… --data ../shared/data --json quality.json --train-rows 2000
    python benchmarks/quality.py table quality.json

MODEL is a run, a directory or a hub id, or NAME=MODEL to call it otherwise in the tables. What the JSON has already is
not measured again, so that a run that was stopped goes on, and a table can be made in pieces on several machines
(`table` takes several files).

zero-shot: masked words of held-out text by genre (held_out.py: what trained on those files has to have left out their
last documents), minimal pairs of Zorro and BLiMP by pseudo-log-likelihood, facts of LAMA, the sentences of cloze.tsv.
fine-tuned: see fine_tuned.py; beside each model the same model with new weights, a bag of words, the packaged MiniLM,
and published figures of Google's small BERTs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import run_script
from fine_tuned import BESIDE, SETS, FineTuning, fine_tune_all
from quality_results import KEYS, Results, describe, fine_tuned_table, tables, zero_shot_tables
from zero_shot import MEASURES, cloze_lines, say

import bothways as bw
from bothways.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ways = parser.add_subparsers(dest="way", required=True)
    zero_shot, fine_tuned, table = (ways.add_parser(name) for name in ("zero-shot", "fine-tuned", "table"))
    for way in (zero_shot, fine_tuned):
        way.add_argument("models", nargs="+", metavar="MODEL")
        way.add_argument("--data", type=Path, default=Path("../shared/data"), help="the folder of data sets")
        way.add_argument("--json", type=Path, default=Path("quality.json"), help="to which results are added")
        way.add_argument("--device", default="auto")
        way.add_argument("--again", action="store_true", help="measure also what the JSON has already")
    zero_shot.add_argument("--measures", nargs="+", choices=MEASURES, default=list(MEASURES))
    zero_shot.add_argument("--pairs-per-paradigm", type=int, default=200, metavar="N", help="0: all")
    fine_tuned.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    fine_tuned.add_argument("--seeds", nargs="+", type=int, default=[0])
    fine_tuned.add_argument("--train-rows", type=int, metavar="N", help="of a set, drawn with the seed; by default all")
    fine_tuned.add_argument("--minutes-per-set", type=float, metavar="M", help="of training, as measured before it")
    fine_tuned.add_argument("--beside", nargs="*", choices=BESIDE, default=list(BESIDE), help="none without a word")
    table.add_argument("files", nargs="+", type=Path, metavar="JSON")
    asked = parser.parse_args(arguments)
    if asked.way == "table":
        print(tables(merged(asked.files)))
        return 0
    return measure_zero_shot(asked) if asked.way == "zero-shot" else measure_fine_tuned(asked)


def named(model: str) -> tuple[str, str]:
    """The name and the path of NAME=MODEL; of a path alone its last parts that say something."""
    name, separator, path = model.partition("=")
    if separator:
        return name, path
    parts = [part for part in Path(model).parts if part not in ("model", "/", "..", ".")]
    return (parts[-1] if parts else model), model


def measure_zero_shot(asked: argparse.Namespace) -> int:
    """The measures that the JSON lacks of each model. Returns the exit code: 1 where something could not be done."""
    results, failed = Results(asked.json), 0
    for name, path in map(named, asked.models):
        model = bw.load(path, asked.device)
        model.require_head("masked-LM", "zero-shot")
        results.add(describe(model, Path(path)), kind="model", model=name)
        for measure in asked.measures:
            key = {"kind": "zero-shot", "model": name, "set": measure}
            if measure in ("zorro", "blimp"):
                key["pairs"] = asked.pairs_per_paradigm
            if results.find(**key) and not asked.again:
                say(f"{name}, {measure}: there already")
                continue
            say(f"{name}, {measure}:")
            try:
                figures = MEASURES[measure](model, asked.data, asked.pairs_per_paradigm)
            except UserError as error:
                say(f"  {error}")
                failed = 1
                continue
            results.add(figures, **key)
            if measure == "cloze":
                print("\n".join([f"{name}, cloze:", *cloze_lines(figures)]))
    print(zero_shot_tables(results))
    return failed


def measure_fine_tuned(asked: argparse.Namespace) -> int:
    """The sets and seeds that the JSON lacks of each model, and of what stands beside it. Returns the exit code."""
    results = Results(asked.json)
    settings = FineTuning(
        asked.data, asked.device, tuple(asked.seeds), asked.train_rows, asked.minutes_per_set, asked.again
    )
    failed = fine_tune_all([named(model) for model in asked.models], asked.sets, asked.beside, settings, results)
    print(fine_tuned_table(results))
    return failed


def merged(files: list[Path]) -> Results:
    """The records of several files together; of the same the last file's."""
    results = Results(files[0])
    for file in files[1:]:
        for record in Results(file).records:
            same = results.find(**{name: record.get(name) for name in KEYS})
            results.records = [kept for kept in results.records if kept not in same] + [record]
    return results


if __name__ == "__main__":
    run_script(main)
