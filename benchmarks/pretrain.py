"""Pretraining speed in real tokens/s, beside `transformers.Trainer` at its best setting.

    python benchmarks/pretrain.py [--sizes mini small base] [--rounds 2] [--precision auto] [--steps 6]

Two contests on wikipedia-small, vocabulary 8,192 (base: 30,522), sequences of at most 128 tokens, dropout 0, AdamW:
MLM + NSP on ragged pairs, where Trainer groups by length; and MLM alone on full sentences, where Trainer gets
`group_texts` blocks of 128 without padding. Both see about `--tokens-per-step` tokens a step. The contestants take
turns; Trainer runs whole steps and steps in four parts; each figure is the best. The first two steps are not counted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import shared_data, show
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertTokenizerFast,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from bothways.data.masking import build_inputs
from bothways.data.prepare import prepare
from bothways.data.store import TokenStore
from bothways.hardware import choose_device, measured_peak
from bothways.model.config import EncoderConfig
from bothways.precision import choose_precision
from bothways.text.vocabulary import train_tokenizer
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.pretrain_plan import make_plan
from bothways.train.speed import measure_speed

WARM_UP = 2


class Clock(TrainerCallback):
    """Real tokens and seconds of all steps after the warm-up."""

    def __init__(self) -> None:
        self.began = self.seconds = 0.0
        self.tokens = self.collated = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        now = time.perf_counter()
        if state.global_step > WARM_UP:
            self.seconds += now - self.began
            self.tokens += self.collated
        # one batch is collated ahead, so a step is given its successor's tokens; over the steps that evens out
        self.began, self.collated = now, 0


class CountingCollator:
    def __init__(self, tokenizer: BertTokenizerFast, clock: Clock) -> None:
        self.collate, self.clock = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15), clock

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        self.clock.collated += sum(len(row["input_ids"]) for row in rows)
        return self.collate(rows)


def trainer_speed(store: TokenStore, options: PretrainOptions, steps: int, precision: torch.dtype, parts: int) -> float:
    """Trainer's real tokens/s on the examples of the store, a step cut into so many parts."""
    tokenizer = BertTokenizerFast.from_pretrained(store.directory / "tokenizer")
    rows = sentence_pairs(store, options) if options.objective == "bert" else grouped_texts(store, options)
    average = float(np.mean([len(row["input_ids"]) for row in rows[:2000]]))
    ours = EncoderConfig.from_size(
        options.size, vocab_size=store.vocab_size, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    settings = {name: value for name, value in ours.to_dict().items() if name != "architectures"}
    kind = BertForPreTraining if options.objective == "bert" else BertForMaskedLM
    torch.manual_seed(0)
    model, clock = kind(BertConfig(**settings)), Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=steps + WARM_UP,
            per_device_train_batch_size=round(options.tokens_per_step / average / parts),
            gradient_accumulation_steps=parts,
            bf16=precision == torch.bfloat16,
            optim="adamw_torch_fused",
            train_sampling_strategy="group_by_length" if options.objective == "bert" else "random",
            learning_rate=1e-4,
            report_to="none",
            save_strategy="no",
            logging_steps=10_000,
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        )
        Trainer(model, arguments, CountingCollator(tokenizer, clock), rows, callbacks=[clock]).train()
    return clock.tokens / clock.seconds


def sentence_pairs(store: TokenStore, options: PretrainOptions) -> list[dict[str, Any]]:
    """The plan's own examples of the first block, not yet masked."""
    plan = make_plan(store, options)
    block = plan.block(0, 0)
    spans = block.spans.take(slice(20_000))
    ids, types, lengths = build_inputs(block.tokens, spans, store.tokenizer())
    cuts = np.cumsum(lengths)[:-1]
    labels = spans.next_sentence_label.tolist()
    return [
        {
            "input_ids": i.tolist(),
            "token_type_ids": s.tolist(),
            "attention_mask": [1] * len(i),
            "next_sentence_label": n,
        }
        for i, s, n in zip(np.split(ids, cuts), np.split(types, cuts), labels, strict=True)
    ]


def grouped_texts(store: TokenStore, options: PretrainOptions) -> list[dict[str, Any]]:
    """All tokens end to end, cut into blocks of the sequence length, as in transformers' run_mlm example."""
    split, tokenizer = store.split("train"), store.tokenizer()
    tokens = np.concatenate([split.chunk(index).tokens for index in range(min(40, split.num_chunks))]).astype(np.int64)
    room = options.sequence_length - 2
    blocks = tokens[: len(tokens) // room * room].reshape(-1, room)
    return [
        {"input_ids": [tokenizer.cls_id, *block.tolist(), tokenizer.sep_id], "attention_mask": [1] * (room + 2)}
        for block in blocks
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["mini", "small", "base"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--tokens-per-step", type=int, default=8192)
    parser.add_argument("--precision", default="auto")
    chosen = parser.parse_args()
    source = str(shared_data() / "wikipedia-small.jsonl.zst")
    folder, rows = Path(tempfile.mkdtemp()), []
    device = choose_device("auto")
    precision = choose_precision(chosen.precision, device)
    stores: dict[int, TokenStore] = {}
    for size in chosen.sizes:
        pieces = 30522 if size in ("base", "large") else 8192
        if pieces not in stores:
            tokenizer = train_tokenizer(source, vocab_size=pieces)
            stores[pieces] = prepare([source], tokenizer, folder / f"store-{pieces}")
        for objective, peer in (("bert", "Trainer, grouped by length"), ("mlm", "Trainer, group_texts")):
            options = PretrainOptions(
                size=size, objective=objective, tokens_per_step=chosen.tokens_per_step, precision=chosen.precision
            )
            ours, theirs = [], []
            for _ in range(chosen.rounds):
                ours.append(measure_speed(stores[pieces], options, chosen.steps))
                for parts in (1, 4):  # whole steps, and parts that stay near the caches as ours do
                    theirs.append(trainer_speed(stores[pieces], options, chosen.steps, precision, parts))
            speed = max(ours, key=lambda measured: measured.tokens_per_second)
            share = speed.flops_per_second / measured_peak(device, precision)
            name = "MLM + NSP" if objective == "bert" else "MLM"
            rows.append([size, name, peer, max(theirs), speed.tokens_per_second, speed.tokens_per_second / max(theirs)])
            rows[-1].append(f"{share:.0%}")
            print(rows[-1], flush=True)
    header = ["size", "objective", "peer", "peer tokens/s", "Bothways tokens/s", "ratio", "share of GEMM peak"]
    peak = measured_peak(device, precision)
    show("pretrain", header, rows, precision=str(precision), gemm_peak=peak)
    print(f"\n{precision}, GEMM peak {peak / 1e12:.3f} TFLOP/s")


if __name__ == "__main__":
    main()
