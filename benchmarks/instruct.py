"""A small model learns to reply: pretrained from left to right on the help desk's own texts, fine-tuned on commands and
on conversations; the share of unseen commands whose result comes back word for word.

    python benchmarks/instruct.py [--steps 600]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from importlib import resources
from pathlib import Path

from common import show

import bothways as bw
from bothways.data.prepare import PrepareOptions, prepare
from bothways.data.tables import read_rows
from bothways.progress import Progress
from bothways.tasks.instruct import InstructTask
from bothways.text.corpus import CorpusOptions
from bothways.text.tokenizer import Tokenizer


def texts(samples: Path) -> list[str]:
    """What the training parts say: tickets, articles, conversations, commands."""
    found = [row.text("text") for row in read_rows(samples / "tickets-train.jsonl")]
    found += list(dict.fromkeys(row.text("context") for row in read_rows(samples / "questions-train.json")))
    for name in ("conversations", "commands"):
        for row in read_rows(samples / f"{name}-train.jsonl"):
            found.append(" ".join(content for _, content in InstructTask().turns(row)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    steps = parser.parse_args().steps
    samples, folder = Path(str(resources.files("bothways"))) / "samples" / "helpdesk", Path(tempfile.mkdtemp())
    said = texts(samples)
    (folder / "texts.txt").write_text("\n\n".join(" ".join(text.split()) for text in said))
    tokenizer = Tokenizer.train(lambda: said, 3000)
    options = PrepareOptions(CorpusOptions(documents="blank-line"), validation=0.05)
    store = prepare([str(folder / "texts.txt")], tokenizer, folder / "store", options)
    began = time.perf_counter()
    pretraining = bw.PretrainOptions(objective="causal", size="mini", steps=steps, tokens_per_step=2048, dropout=0.1)
    bw.pretrain(store.directory, folder / "lm", pretraining)
    seconds = time.perf_counter() - began
    rows: list[list[object]] = [["pretraining", steps * 2048, seconds, "", ""]]
    for name in ("commands", "conversations"):
        train, test = samples / f"{name}-train.jsonl", samples / f"{name}-test.jsonl"
        began = time.perf_counter()
        finetuning = bw.FinetuneOptions(epochs=20, lr=5e-4, batch_size=16)
        result = bw.finetune(
            "instruct", folder / "lm", train, test, folder / name, finetuning, progress=Progress("", shown=False)
        )
        seconds, model = time.perf_counter() - began, bw.load(folder / name)
        held_out = [InstructTask().turns(row) for row in read_rows(test)]
        right = 0
        for turns in held_out:
            messages = [{"role": role, "content": content} for role, content in turns[:-1]]
            reply, truth = model.chat(messages, greedy=True), tokenizer.decode(tokenizer.encode(turns[-1][1]).input_ids)
            right += reply == truth
            print(f"{turns[-2][1]}  →  {reply}" + ("" if reply == truth else f"   (should be: {truth})"))
        assert result.metrics is not None
        rows.append(
            [
                f"{name}: {len(held_out)} held out",
                "",
                seconds,
                result.metrics["perplexity"],
                f"{right / len(held_out):.0%}",
            ]
        )
    show("instruct", ["", "tokens", "seconds", "perplexity of replies", "word for word"], rows, steps=steps)


if __name__ == "__main__":
    main()
