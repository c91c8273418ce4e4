"""Does the model learn as `transformers` does? The mini size on wikipedia-small, twice: once by Bothways, once as
`BertForPreTraining` trained by torch's AdamW and transformers' schedule on the same examples and masks, padded.

    python benchmarks/pretrain_loss.py [--steps 150]

Both start from the same weights and use float32 without dropout; the table gives the held-out losses and the speed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from common import shared_data, show
from transformers import BertConfig as HuggingFaceConfig
from transformers import BertForPreTraining, get_linear_schedule_with_warmup

from bothways.batch import PackedBatch
from bothways.checkpoint.hugging_face import Checkpoint, load_checkpoint, new_model, save_checkpoint
from bothways.data.prepare import prepare
from bothways.model.config import EncoderConfig
from bothways.model.families import head_builder
from bothways.tasks.pretraining import BertObjective
from bothways.text.vocabulary import train_tokenizer
from bothways.train.loop import evaluate_objective
from bothways.train.pretrain import pretrain
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.pretrain_plan import make_plan, make_validation_plan
from bothways.train.run import RunDirectory


def padded(batch: PackedBatch) -> dict[str, torch.Tensor]:
    """The batch as `transformers` wants it, `[N, longest]`."""
    shape = (batch.num_sequences, batch.max_seqlen)
    mask = torch.arange(batch.max_seqlen) < batch.lengths[:, None]
    labels = torch.full((batch.num_tokens,), -100)
    labels[batch.targets["mlm_index"]] = batch.targets["mlm_labels"]
    columns = {"input_ids": batch.input_ids, "token_type_ids": batch.token_type_ids, "labels": labels}
    inputs = {"attention_mask": mask.long(), "next_sentence_label": batch.targets["next_sentence_label"]}
    for name, flat in columns.items():
        inputs[name] = torch.full(shape, -100 if name == "labels" else 0)
        inputs[name][mask] = flat
    return inputs


def train_transformers(model: BertForPreTraining, plan, options: PretrainOptions) -> tuple[float, int]:
    """Returns seconds and real tokens."""
    decayed = [p for name, p in model.named_parameters() if not name.endswith("bias") and "LayerNorm" not in name]
    plain = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, 0.98), eps=1e-8, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, int(options.warmup * options.steps), options.steps)
    seconds, tokens = 0.0, 0
    model.train()
    for step in range(options.steps):
        batch = plan.batch(step)
        inputs = padded(batch)
        began = time.perf_counter()
        model(**inputs).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        seconds += time.perf_counter() - began
        tokens += batch.num_tokens
        if step % 20 == 0:
            print(f"transformers step {step}/{options.steps}, {tokens / seconds:,.0f} tokens/s", flush=True)
    return seconds, tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150)
    steps = parser.parse_args().steps
    folder = Path(tempfile.mkdtemp())
    source = str(shared_data() / "wikipedia-small.jsonl.zst")
    tokenizer = train_tokenizer(source, vocab_size=8192)
    store = prepare([source], tokenizer, folder / "store")
    config = EncoderConfig.from_size(
        "mini", vocab_size=store.vocab_size, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    save_checkpoint(Checkpoint(new_model(config, head_builder("pretraining"), seed=0), tokenizer), folder / "start")
    options = PretrainOptions(
        model=str(folder / "start"), steps=steps, tokens_per_step=4096, lr=1e-3, precision="float32", evaluate_every=0
    )

    theirs = BertForPreTraining.from_pretrained(folder / "start")
    assert isinstance(theirs.config, HuggingFaceConfig)
    seconds, tokens = train_transformers(theirs, make_plan(store, options), options)
    save_checkpoint(Checkpoint(new_model(config, head_builder("pretraining"), seed=0), tokenizer), folder / "theirs")
    theirs.save_pretrained(folder / "theirs")

    pretrain(store.directory, folder / "run", options)
    ours_speed = [line for line in RunDirectory(folder / "run").metrics() if "seconds" in line][-1]
    rows = []
    for name, path, speed in (
        ("transformers", folder / "theirs", tokens / seconds),
        ("Bothways", folder / "run", ours_speed["tokens"] / ours_speed["seconds"]),
    ):
        validation = make_validation_plan(store, options)
        assert validation is not None
        figures = evaluate_objective(
            load_checkpoint(path).model,
            BertObjective(),
            validation.evaluation_share(8192, 200_000, 0, 1),
            torch.float32,
        )
        rows.append([name, figures["mlm_loss"], figures["mlm_accuracy"], figures["nsp_loss"], speed])
    rows.append(
        [
            "difference / ratio",
            *(b - a for a, b in zip(rows[0][1:4], rows[1][1:4], strict=True)),
            rows[1][4] / rows[0][4],
        ]
    )
    show(
        "pretrain_loss",
        ["", "held-out MLM loss", "MLM accuracy", "NSP loss", "tokens/s"],
        rows,
        precision="float32",
        tokens=tokens,
    )


if __name__ == "__main__":
    main()
