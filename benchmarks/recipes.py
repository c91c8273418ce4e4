"""What each small recipe reaches: real tokens/s and held-out losses on wikipedia-small, a fixed number of tokens each.

    python benchmarks/recipes.py [--size tiny] [--steps 400]

The recipes' own objectives, phases and rates; size, steps and tokens a step are the same for all. Held-out text is
always masked at 15 %, so the losses of masked LM can be compared; recipes with pairs read shorter contexts.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

from common import shared_data, show

from bothways.data.prepare import prepare
from bothways.text.vocabulary import train_tokenizer
from bothways.train.pretrain import pretrain
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.run import RunDirectory
from bothways.verbs.recipes import read_recipe

RECIPES = ("bert-mini", "whole-word", "mlm-only", "roberta-style", "sentence-order", "falling-mask-rate", "two-phases")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--steps", type=int, default=400)
    chosen = parser.parse_args()
    folder, source = Path(tempfile.mkdtemp()), str(shared_data() / "wikipedia-small.jsonl.zst")
    tokenizer = train_tokenizer(source, vocab_size=8192)
    store = prepare([source], tokenizer, folder / "store").directory
    rows = []
    for name in RECIPES:
        own = PretrainOptions(**read_recipe(name, "pretrain", PretrainOptions))
        options = dataclasses.replace(own, size=chosen.size, steps=chosen.steps, tokens_per_step=4096, lr=None)
        pretrain(store, folder / name, options)
        lines = RunDirectory(folder / name).metrics()
        last = next(line for line in reversed(lines) if "seconds" in line)
        held_out = next(line for line in reversed(lines) if "eval_mlm_loss" in line)
        pairs = held_out.get("eval_nsp_accuracy", held_out.get("eval_sop_accuracy"))
        speed = last["tokens"] / last["seconds"]
        rows.append(
            [name, last["tokens"], speed, held_out["eval_mlm_loss"], held_out["eval_mlm_accuracy"], pairs or ""]
        )
        print(rows[-1], flush=True)
    header = ["recipe", "tokens", "tokens/s", "held-out MLM loss", "MLM accuracy", "pairs' accuracy"]
    show("recipes", header, rows, size=chosen.size)


if __name__ == "__main__":
    main()
