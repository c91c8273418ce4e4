"""Left to right: the same causal model trained on Tiny Shakespeare by Bothways and by `transformers.Trainer`, on the
same batches; then what came before it, on the same held-out tokens.

    python benchmarks/causal.py [--size mini] [--steps 600] [--documents blank-line]

The first nine tenths of the text are trained on, the rest is held out. With `--documents file` both parts are cut into
windows of 256 tokens, so that there is nothing to pad; with `--documents blank-line` each speech is a document, and the
peer pads them to the longest of the step. Both start from the same weights, in float32, with AdamW (the peer's fused),
linear warm-up and decay.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import shared_data, show
from torch.utils.data import SequentialSampler
from transformers import BertLMHeadModel, Trainer, TrainingArguments

from bothways.baselines.language import compare_language_models, read_documents_of
from bothways.batch import PackedBatch
from bothways.checkpoint.hugging_face import Checkpoint, load_checkpoint, new_model, save_checkpoint
from bothways.data.prepare import PrepareOptions, prepare
from bothways.data.store import TokenStore
from bothways.model.config import EncoderConfig
from bothways.model.families import head_builder
from bothways.text.corpus import CorpusOptions
from bothways.text.tokenizer import Tokenizer
from bothways.text.vocabulary import train_tokenizer
from bothways.token_budget import UNLIMITED
from bothways.train.held_out import evaluate_store
from bothways.train.pretrain import pretrain
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.pretrain_plan import make_plan
from bothways.train.run import RunDirectory

LENGTH, TOKENS_PER_STEP = 256, 4096


def stores(folder: Path, parted: Any) -> tuple[TokenStore, TokenStore, Tokenizer]:
    """The first nine tenths, the rest, and a vocabulary of the first."""
    text = (shared_data() / "tinyshakespeare" / "input.txt").read_text()
    cut = text.rindex("\n\n", 0, len(text) * 9 // 10)
    (folder / "train.txt").write_text(text[:cut])
    (folder / "held-out.txt").write_text(text[cut:])
    tokenizer = train_tokenizer(str(folder / "train.txt"), vocab_size=4096)
    options = PrepareOptions(CorpusOptions(documents=parted), validation=0)
    made = [prepare([str(folder / f"{name}.txt")], tokenizer, folder / name, options) for name in ("train", "held-out")]
    return made[0], made[1], tokenizer


def padded(batch: PackedBatch) -> dict[str, torch.Tensor]:
    """`[N, longest]`: what is read; the label of each token is the one after it, which `transformers` shifts itself, so
    each sequence is one longer than what is read, and the last token has a label only."""
    following = batch.targets["next_tokens"]
    lengths = (batch.lengths + 1).tolist()
    ids = torch.zeros((len(lengths), max(lengths)), dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    begin = 0
    for row, length in enumerate(lengths):
        end = begin + length - 1
        ids[row, :length] = torch.cat([batch.input_ids[begin:end], following[end - 1 : end]])
        labels[row, :length], mask[row, :length] = ids[row, :length], 1
        begin = end
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class InOrder(Trainer):
    def _get_train_sampler(self, *arguments: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


def with_trainer(start: Path, out: Path, store: TokenStore, options: PretrainOptions) -> float:
    """Trains on what the plan gives at each step, one step a row; returns seconds of the loop."""
    plan = make_plan(store, options)
    steps = [padded(plan.micro_batches(step, 0, 1, UNLIMITED)[0]) for step in range(options.steps)]
    model = BertLMHeadModel.from_pretrained(start)
    arguments = TrainingArguments(
        str(out / "trainer"), max_steps=options.steps, per_device_train_batch_size=1, learning_rate=options.lr,
        warmup_steps=options.warmup, weight_decay=options.weight_decay, adam_beta2=0.98, max_grad_norm=options.clip,
        report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True, optim="adamw_torch_fused",
        logging_strategy="no", remove_unused_columns=False,
    )  # fmt: skip
    trainer = InOrder(model, arguments, lambda rows: rows[0], steps)
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    model.save_pretrained(out)
    store.tokenizer().save(out)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="mini")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--documents", choices=["file", "blank-line"], default="file")
    parser.add_argument("--no-baselines", action="store_true")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    train, held_out, tokenizer = stores(folder, arguments.documents)
    config = EncoderConfig.from_size(
        arguments.size, vocab_size=train.vocab_size, hidden_dropout_prob=arguments.dropout,
        attention_probs_dropout_prob=arguments.dropout, is_decoder=True,
    )  # fmt: skip
    save_checkpoint(Checkpoint(new_model(config, head_builder("causal-LM"), seed=0), tokenizer), folder / "start")
    options = PretrainOptions(
        model=str(folder / "start"), objective="causal", steps=arguments.steps, tokens_per_step=TOKENS_PER_STEP,
        sequence_length=LENGTH, lr=arguments.lr, dropout=arguments.dropout, precision="float32", evaluate_every=0,
    )  # fmt: skip
    pretrain(train.directory, folder / "ours", options)
    last = [line for line in RunDirectory(folder / "ours").metrics() if "seconds" in line][-1]
    seconds = {
        "transformers": with_trainer(folder / "start", folder / "theirs", train, options),
        "Bothways": last["seconds"],
    }
    rows, losses = [], {}
    for name, path in (("transformers", "theirs"), ("Bothways", "ours")):
        checkpoint = load_checkpoint(folder / path)
        checkpoint.metadata = {"provenance": {"options": {"objective": "causal", "sequence_length": LENGTH}}}
        losses[name] = evaluate_store(checkpoint, held_out, "train", "cpu", limit=UNLIMITED)["lm_loss"]
        rows.append([name, losses[name], math.exp(losses[name]), last["tokens"] / seconds[name], seconds[name]])
    speed = rows[1][3] / rows[0][3]
    rows.append(["difference / ratio", losses["Bothways"] - losses["transformers"], rows[1][2] - rows[0][2], speed, ""])
    settings = {**vars(arguments), "tokens": last["tokens"]}
    show("causal", ["", "held-out loss, nats", "perplexity", "tokens/s", "seconds"], rows, **settings)
    if arguments.no_baselines:
        return
    texts = read_documents_of(train, tokenizer, "train"), read_documents_of(held_out, tokenizer, "train")
    results = list(compare_language_models(*texts, tokenizer, texts[1][0][:4], 3, print))
    table: list[list[Any]] = [
        [result.name, result.perplexity or "", result.train_seconds, result.size_bytes / 1e6] for result in results
    ]
    size = (folder / "ours" / "model" / "model.safetensors").stat().st_size / 1e6
    table.append(["transformer", rows[1][2], seconds["Bothways"], size])
    show("causal-before", ["", "perplexity", "training s", "MB"], table, **settings)


if __name__ == "__main__":
    main()
