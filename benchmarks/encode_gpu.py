"""Inference on a GPU beside transformers: real tokens a second of base and large, texts of one length and of all.

    python benchmarks/encode_gpu.py [--sizes base large] [--tokens 400000] [--budget 32768]

All in bfloat16 with random weights and random ids; `transformers` pads batches sorted by length, with the attention it
has (sdpa, and flash_attention_2 where that is installed). The fraction is of the best matrix product measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable

import numpy as np
import torch
from common import show
from transformers import BertConfig, BertModel

from bothways.checkpoint.hugging_face import new_model
from bothways.data.encoded import Encoded
from bothways.hardware import INFERENCE_BATCH_TOKENS, choose_device, measured_peak
from bothways.inference import engine
from bothways.inference.prepared import prepare_model
from bothways.model.config import EncoderConfig
from bothways.model.task_heads import EmbeddingHead
from bothways.precision import choose_inference_precision
from bothways.train.flops import training_flops

LONGEST = 512


def sequences(tokens: int, variable: bool) -> list[Encoded]:
    generator = np.random.default_rng(0)
    lengths: list[int] = []
    while sum(lengths) < tokens:
        lengths.append(int(generator.integers(16, LONGEST + 1)) if variable else LONGEST)
    return [
        Encoded(generator.integers(1000, 30000, n), np.zeros(n, dtype=np.int64), np.zeros((n, 2), dtype=np.int64))
        for n in lengths
    ]


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """The best of three, after one that is not counted."""
    best = float("inf")
    for turn in range(4):
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began) if turn else best
    return best


def with_transformers(
    size: dict[str, int], kind: str, encoded: list[Encoded], budget: int, device: torch.device, dtype: torch.dtype
) -> float:
    config = BertConfig(**size, attn_implementation=kind)
    model = BertModel(config, add_pooling_layer=False).to(device, dtype).eval()
    order = sorted(encoded, key=lambda sequence: -len(sequence.input_ids))

    @torch.inference_mode()
    def run() -> None:
        start = 0
        while start < len(order):
            longest = len(order[start].input_ids)
            part = order[start : start + max(1, budget // longest)]
            start += len(part)
            ids = torch.zeros(len(part), longest, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, sequence in enumerate(part):
                ids[row, : len(sequence.input_ids)] = torch.from_numpy(sequence.input_ids)
                mask[row, : len(sequence.input_ids)] = 1
            hidden = model(ids.to(device), attention_mask=mask.to(device)).last_hidden_state
            share = mask.to(device, dtype)[..., None]
            ((hidden * share).sum(1) / share.sum(1)).float().cpu()

    return seconds(run, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["base", "large"])
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--budget", type=int, default=INFERENCE_BATCH_TOKENS["cuda"])
    chosen = parser.parse_args()
    device = choose_device("auto")
    INFERENCE_BATCH_TOKENS[device.type] = chosen.budget  # Bothways' batches are the peer's size
    precision = choose_inference_precision("auto", device)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    peak = measured_peak(device, dtype)
    kinds = ["sdpa", *(["flash_attention_2"] if importlib.util.find_spec("flash_attn") else [])]
    rows = []
    for size in chosen.sizes:
        config = EncoderConfig.from_size(size)
        model = new_model(config, lambda encoder: EmbeddingHead("mean"), seed=0).to(device).eval()
        ours = prepare_model(model, precision)
        shape = {
            "hidden_size": config.hidden_size, "num_hidden_layers": config.num_hidden_layers,
            "num_attention_heads": config.num_attention_heads, "intermediate_size": config.intermediate_size,
        }  # fmt: skip
        for variable in (False, True):
            encoded = sequences(chosen.tokens, variable)
            tokens = sum(len(sequence.input_ids) for sequence in encoded)
            whole = engine.pack_encoded(encoded, engine.no_targets)
            flops = training_flops(model, whole) / 3  # without the backward pass

            def run(encoded: list[Encoded] = encoded, ours: object = ours) -> None:
                split = lambda vectors, some, batch: list(vectors.float().cpu().numpy())  # noqa: E731
                engine.run_batches(ours, split, encoded, device)  # type: ignore[arg-type]

            taken = {"Bothways": seconds(run, device)}
            for kind in kinds:
                taken[f"transformers, {kind}"] = with_transformers(shape, kind, encoded, chosen.budget, device, dtype)
            for name, found in taken.items():
                rate, share = tokens / found, f"{flops / found / peak:.1%}"
                lengths = "16 to 512" if variable else "512"
                rows.append([size, lengths, name, rate, found / taken["Bothways"], share])
                print(rows[-1], flush=True)
    header = ["size", "lengths", "", "tokens/s", "times Bothways' seconds", "of measured peak"]
    show("encode-gpu", header, rows, dtype=str(dtype), tokens=chosen.tokens, budget=chosen.budget)


if __name__ == "__main__":
    main()
