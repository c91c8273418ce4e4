"""AdamW and Muon: held-out masked-LM loss over tokens, from the same weights on the same batches.

    python benchmarks/optimizers.py [--size tiny] [--steps 400]

Muon's orthogonalisation multiplies in bfloat16, which a CPU without such arithmetic emulates slowly, so the seconds
mean little here; the question is whether it needs fewer tokens.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from common import shared_data, show

from bothways.data.prepare import prepare
from bothways.text.vocabulary import train_tokenizer
from bothways.train.pretrain import pretrain
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.run import RunDirectory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--lr", type=float, nargs="+", default=[2e-3, 4e-3])
    chosen = parser.parse_args()
    folder, source = Path(tempfile.mkdtemp()), str(shared_data() / "wikipedia-small.jsonl.zst")
    tokenizer = train_tokenizer(source, vocab_size=8192)
    store = prepare([source], tokenizer, folder / "store").directory
    header, rows = ["optimizer", "lr"], []
    for name in ("adamw", "muon"):
        for lr in chosen.lr:
            out = folder / f"{name}-{lr}"
            options = PretrainOptions(
                size=chosen.size, steps=chosen.steps, tokens_per_step=4096, lr=lr, optimizer=name,
                objective="mlm", evaluate_every=max(1, chosen.steps // 8), validation_tokens=80_000,
            )  # fmt: skip
            result = pretrain(store, out, options)
            lines = [line for line in RunDirectory(out).metrics() if "eval_mlm_loss" in line]
            header[2:] = [f"{line['tokens'] / 1e6:.2f} M" for line in lines] + ["seconds"]
            rows.append([name, lr, *(round(line["eval_mlm_loss"], 3) for line in lines), round(result.seconds)])
            print(rows[-1], flush=True)
    show("optimizers", header, rows, size=chosen.size)


if __name__ == "__main__":
    main()
