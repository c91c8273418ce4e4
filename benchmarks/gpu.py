"""Pretraining on a GPU: kernels checked against the reference, then real tokens/s and MFU of base and large.

    python benchmarks/gpu.py [--sizes base large] [--lengths 128 512] [--steps 20] [--compile auto]

Needs no data: the text is random pieces in sentences and documents of ragged length. FLOPs are counted as in
`bothways.train.flops` (no padding, no rows without a mask, nothing twice); MFU divides them by the chip's dense
bfloat16 peak, which stands in the table below, or by the measured peak where the chip is not in it. With the default
options the whole is meant to take under eight minutes; each line is printed as soon as it is measured.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import show

from bothways.batch import pack
from bothways.data.store import Shard, ShardWriter, TokenStore, store_fingerprint
from bothways.files import write_json
from bothways.hardware import choose_device, measured_peak
from bothways.model.attention import attend
from bothways.model.kernels.eager import attend_eager
from bothways.precision import choose_precision
from bothways.text.corpus import CorpusReport
from bothways.text.tokenizer import Tokenizer
from bothways.text.tokenizer_backend import SPECIAL_TOKENS
from bothways.train.pretrain_options import PretrainOptions
from bothways.train.speed import measure_speed

# Dense bfloat16 FLOP/s by the maker's data sheet.
NOMINAL = {"NVIDIA H200": 989e12, "NVIDIA H100 80GB HBM3": 989e12, "NVIDIA L4": 121e12}


def random_store(folder: Path, vocab_size: int, tokens: int) -> TokenStore:
    """A store of random pieces: sentences of 3 to 60, documents of 2 to 40 sentences."""
    words = [f"w{number}" for number in range(vocab_size - len(SPECIAL_TOKENS))]
    tokenizer = Tokenizer.from_pieces([*SPECIAL_TOKENS, *words])
    (folder / "tokenizer").mkdir(parents=True)
    tokenizer.save(folder / "tokenizer")
    rng, writer = np.random.default_rng(0), ShardWriter(folder / "train-00000.arrow", np.dtype(np.uint16))
    while tokens > 0:
        lengths = rng.integers(3, 60, rng.integers(2, 40)).astype(np.int32)
        writer.add(rng.integers(len(SPECIAL_TOKENS), vocab_size, lengths.sum()), lengths)
        tokens -= int(lengths.sum())
    splits: dict[str, list[Shard]] = {"train": [writer.close()], "validation": []}
    manifest = {
        "fingerprint": store_fingerprint(tokenizer.fingerprint, splits),
        "tokenizer": tokenizer.fingerprint,
        "vocab_size": vocab_size,
        "splits": {name: [vars(shard) for shard in shards] for name, shards in splits.items()},
        "corpus": CorpusReport().to_dict(),
    }
    write_json(folder / "manifest.json", manifest)
    return TokenStore(folder)


def check_attention(device: torch.device, dtype: torch.dtype) -> float:
    """The largest difference, of values and gradients, between the device's kernel and the reference in float32."""
    lengths = torch.tensor([128, 128, 77, 512, 1, 33])
    ids = np.zeros(int(lengths.sum()), dtype=np.int64)
    batch = pack(ids, ids, lengths.numpy()).to(device)
    torch.manual_seed(0)
    parts = [torch.randn(int(lengths.sum()), 4, 64, device=device, dtype=dtype, requires_grad=True) for _ in range(3)]
    exact = [part.detach().float().requires_grad_() for part in parts]
    ours = attend(*parts, batch)
    theirs, _ = attend_eager(*exact, lengths)
    ours.float().square().sum().backward()
    theirs.square().sum().backward()
    gaps = [(ours.float() - theirs).abs().max()]
    gaps += [(part.grad.float() - reference.grad).abs().max() for part, reference in zip(parts, exact, strict=True)]
    return max(float(gap) for gap in gaps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["base", "large"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[128, 512])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--tokens-per-step", type=int, default=65_536)
    parser.add_argument("--micro-batch-tokens", type=int, default=None)
    parser.add_argument("--compile", default="auto", choices=("auto", "on", "off"))
    parser.add_argument("--vocab-size", type=int, default=30522)
    chosen = parser.parse_args()
    device = choose_device("auto")
    dtype = choose_precision("auto", device)
    print(f"attention against the reference: largest difference {check_attention(device, dtype):.2g}", flush=True)
    measured = measured_peak(device, dtype)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    nominal = NOMINAL.get(name, measured)
    store = random_store(Path(tempfile.mkdtemp()) / "store", chosen.vocab_size, 20_000_000)
    rows = []
    for size in chosen.sizes:
        for length in chosen.lengths:
            options = PretrainOptions(
                size=size, sequence_length=length, tokens_per_step=chosen.tokens_per_step, short=0.1,
                micro_batch_tokens=chosen.micro_batch_tokens, compile=chosen.compile,
            )  # fmt: skip
            began = time.perf_counter()
            speed = measure_speed(store, options, chosen.steps)
            memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
            shares = [f"{speed.flops_per_second / peak:.1%}" for peak in (nominal, measured)]
            rows.append([size, length, speed.tokens_per_second, *shares, memory, time.perf_counter() - began])
            print(rows[-1], flush=True)
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
    header = ["size", "length", "tokens/s", "MFU", "of measured peak", "GiB", "seconds, with compilation"]
    show("gpu", header, rows, peak=nominal, measured_peak=measured, dtype=str(dtype))


if __name__ == "__main__":
    main()
